//! What the screen shows and what keys do to it. Knows no terminal, clock or TPM: keys and events in, effects out.

use std::collections::VecDeque;

use passhold::{Entry, Exit, Standing};
use ratatui::termion::event::Key;
use zeroize::Zeroizing;

use super::{
    dialog::{Dialog, Typed},
    json::{Finding, findings},
    worker::{Answer, Event, Job, Outcome},
};

/// What is to be done outside.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Run(Job),
    Answer(Answer),
    Suspend,
    Quit,
}

/// What fills the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    Passkeys,
    Bin,
    Doctor,
}

#[derive(Debug)]
pub(super) struct Model {
    pub(super) view: View,
    pub(super) dialog: Option<Dialog>,
    pub(super) filter: Typed,
    /// All, and those in the bin.
    pub(super) passkeys: Vec<Entry>,
    /// Those of the view that the filter leaves, by their place in `passkeys`.
    pub(super) shown: Vec<usize>,
    pub(super) findings: Vec<Finding>,
    /// None until the passkeys are known.
    pub(super) standing: Option<Standing>,
    /// Of what is shown, in any view.
    pub(super) chosen: usize,
    /// The first line that is on the screen, and how many are; the view sets them.
    pub(super) top: usize,
    pub(super) page: usize,
    /// Why there is nothing to show.
    pub(super) trouble: Option<String>,
    has_no_vault: bool,
    /// How the last command ended.
    pub(super) said: String,
    /// The command that runs.
    pub(super) running: Option<Job>,
    /// What it has told so far.
    pub(super) notes: Vec<String>,
    /// How much of that came before its last question was answered.
    answered: Option<usize>,
    is_cancelled: bool,
    is_leaving: bool,
    next: VecDeque<Job>,
}

impl Model {
    /// Before anything is known.
    pub(super) fn new() -> (Self, Effect) {
        let model = Self {
            view: View::Passkeys,
            dialog: None,
            filter: Typed::new(""),
            passkeys: Vec::new(),
            shown: Vec::new(),
            findings: Vec::new(),
            standing: None,
            chosen: 0,
            top: 0,
            page: 1,
            trouble: None,
            has_no_vault: false,
            said: String::new(),
            running: Some(Job::Look),
            notes: Vec::new(),
            answered: None,
            is_cancelled: false,
            is_leaving: false,
            next: VecDeque::new(),
        };
        (model, Effect::Run(Job::Look))
    }

    /// The keys that do something now, and what, the most important first.
    pub(super) fn keys(&self) -> Vec<(&'static str, &'static str)> {
        match (&self.dialog, self.view) {
            (Some(Dialog::Said { .. } | Dialog::Details { .. }), _) => vec![("Enter", "go on")],
            (Some(Dialog::Filter), _) => vec![("Enter", "keep"), ("Esc", "all")],
            (Some(_), _) => vec![("Enter", "ok"), ("Esc", "cancel")],
            (None, _) if self.is_busy() => vec![("q", "quit")],
            (None, View::Passkeys) if self.has_no_vault => {
                vec![("s", "set up"), ("h", "doctor"), ("r", "look again"), ("q", "quit")]
            }
            (None, View::Passkeys) => vec![
                ("q", "quit"),
                ("/", "filter"),
                ("Enter", "details"),
                ("n", "rename"),
                ("d", "delete"),
                ("b", "bin"),
                ("h", "doctor"),
                ("p", "change PIN"),
                ("f", "forgotten PIN"),
                ("c", "new recovery code"),
                ("r", "look again"),
            ],
            (None, View::Bin) => vec![
                ("Esc", "back"),
                ("u", "undelete"),
                ("/", "filter"),
                ("Enter", "details"),
                ("e", "empty the bin"),
                ("r", "look again"),
                ("q", "quit"),
            ],
            (None, View::Doctor) => {
                vec![("Esc", "back"), ("Enter", "details"), ("r", "look again"), ("q", "quit")]
            }
        }
    }

    /// The chosen passkey.
    pub(super) fn passkey(&self) -> Option<&Entry> {
        self.shown.get(self.chosen).and_then(|&at| self.passkeys.get(at))
    }

    /// The chosen line of the doctor.
    pub(super) fn finding(&self) -> Option<&Finding> {
        self.findings.get(self.chosen)
    }

    /// How many lines there are to choose from.
    pub(super) fn lines(&self) -> usize {
        if self.view == View::Doctor { self.findings.len() } else { self.shown.len() }
    }

    /// Whether something is being done, or will be as soon as what is being read is there.
    fn is_busy(&self) -> bool {
        self.running.iter().chain(&self.next).any(|job| !job.reads())
    }

    /// A key was typed.
    pub(super) fn key(&mut self, key: Key) -> Option<Effect> {
        if let Some(dialog) = self.dialog.take() {
            return self.key_in_dialog(key, dialog);
        }
        match key {
            Key::Ctrl('z') => return Some(Effect::Suspend),
            Key::Char('q') | Key::Ctrl('c') => return self.quit(),
            Key::Up | Key::Char('k') => self.choose(self.chosen.saturating_sub(1)),
            Key::Down | Key::Char('j') => self.choose(self.chosen + 1),
            Key::PageUp => self.choose(self.chosen.saturating_sub(self.page)),
            Key::PageDown => self.choose(self.chosen + self.page),
            Key::Home | Key::Char('g') => self.choose(0),
            Key::End | Key::Char('G') => self.choose(usize::MAX),
            Key::Char('\n') if self.lines() > 0 => self.dialog = Some(Dialog::Details { scroll: 0 }),
            // What is typed while something is being done is meant for nothing.
            _ if self.is_busy() => {}
            Key::Char('/') if self.view != View::Doctor => self.dialog = Some(Dialog::Filter),
            Key::Char('r') => return self.look(self.view),
            Key::Esc if self.view == View::Passkeys => self.show_all(),
            Key::Esc => return self.look(View::Passkeys),
            Key::Char(key) => return self.command(key),
            _ => {}
        }
        None
    }

    fn command(&mut self, key: char) -> Option<Effect> {
        let chosen = self.passkey().map(|passkey| passkey.id);
        match (self.view, key) {
            (View::Passkeys, 's') if self.has_no_vault => return self.run(Job::SetUp),
            (View::Passkeys, 'h') => return self.look(View::Doctor),
            (View::Passkeys, _) if self.has_no_vault => {}
            (View::Passkeys, 'b') => return self.look(View::Bin),
            (View::Passkeys, 'p') => return self.run(Job::ChangePin),
            (View::Passkeys, 'f') => return self.run(Job::ResetPin),
            (View::Passkeys, 'c') => return self.run(Job::RenewCode),
            (View::Passkeys, 'd') => return chosen.and_then(|id| self.run(Job::Delete(id))),
            (View::Passkeys, 'n') => {
                let named = self.passkey().map(|passkey| (passkey.id, passkey.name().to_owned()));
                self.dialog = named.map(|(id, name)| {
                    let typed = Typed::new(&name);
                    Dialog::Rename { job: Job::Rename(id, String::new()), name, typed }
                });
            }
            (View::Bin, 'u') => return chosen.and_then(|id| self.run(Job::Undelete(id))),
            (View::Bin, 'e') if self.in_view().next().is_some() => return self.run(Job::EmptyBin),
            _ => {}
        }
        None
    }

    fn key_in_dialog(&mut self, key: Key, mut dialog: Dialog) -> Option<Effect> {
        let (is_end, is_cancel) = (key == Key::Char('\n'), matches!(key, Key::Esc | Key::Ctrl('c')));
        match &mut dialog {
            Dialog::Question { typed, .. } if is_end => {
                self.answered = Some(self.notes.len());
                return Some(Effect::Answer(Some(typed.take())));
            }
            Dialog::Question { .. } if is_cancel => {
                self.is_cancelled = true;
                return Some(Effect::Answer(None));
            }
            Dialog::Rename { job: Job::Rename(id, _), typed, .. } if is_end => {
                let job = Job::Rename(*id, typed.text().to_owned());
                return self.run(job);
            }
            Dialog::Said { .. } | Dialog::Details { .. } if is_end || is_cancel => return None,
            Dialog::Rename { .. } if is_cancel => return None,
            Dialog::Filter if is_end => return None,
            Dialog::Filter if is_cancel => {
                self.show_all();
                return None;
            }
            Dialog::Filter => {
                self.filter.key(key);
                self.filter();
            }
            Dialog::Question { typed, .. } | Dialog::Rename { typed, .. } => typed.key(key),
            Dialog::Said { scroll, .. } | Dialog::Details { scroll } => match key {
                Key::Up => *scroll = scroll.saturating_sub(1),
                Key::Down => *scroll += 1,
                _ => {}
            },
        }
        self.dialog = Some(dialog);
        None
    }

    /// A command tells something.
    pub(super) fn event(&mut self, event: Event) -> Option<Effect> {
        match event {
            Event::Noted(note) => {
                self.notes.push(note);
                None
            }
            // Nobody is there to be asked any more.
            Event::Asked { .. } if self.is_leaving => Some(Effect::Answer(None)),
            Event::Asked { prompt, hidden } => {
                self.dialog = Some(Dialog::Question { prompt, hidden, typed: Typed::new("") });
                None
            }
            Event::Ended(job, outcome) => {
                self.running = None;
                // What is to be read stays.
                self.dialog.take_if(|dialog| matches!(dialog, Dialog::Question { .. }));
                if job.reads() {
                    self.show(&job, outcome);
                } else {
                    self.tell(&outcome);
                }
                self.notes.clear();
                self.answered = None;
                if self.is_leaving {
                    return Some(Effect::Quit);
                }
                self.next.pop_front().and_then(|next| self.run(next))
            }
        }
    }

    /// What was read is there.
    fn show(&mut self, job: &Job, outcome: Outcome) {
        // The person has gone elsewhere meanwhile.
        if *job != self.reading() {
            return;
        }
        if *job == Job::Doctor {
            // It ends with an error where it has found something.
            let is_refused = outcome.printed.is_empty();
            let found =
                if is_refused { Err(why_refused(&outcome).to_owned()) } else { findings(&outcome.printed) };
            (self.findings, self.trouble) =
                found.map_or_else(|e| (Vec::new(), Some(e)), |found| (found, None));
            return;
        }
        let chosen = self.passkey().map(|passkey| passkey.id);
        self.has_no_vault = outcome.code == Exit::NoVault.code();
        (self.standing, self.passkeys, self.trouble) = match outcome.overview {
            Some((standing, passkeys)) => (Some(standing), passkeys, None),
            None => (None, Vec::new(), Some(why_refused(&outcome).to_owned())),
        };
        self.filter();
        let same = |&at: &usize| self.passkeys.get(at).map(|passkey| passkey.id) == chosen;
        self.choose(self.shown.iter().position(same).unwrap_or(self.chosen));
    }

    /// What was to be done is done, or not. A code that is shown once is not only a line that the next one replaces.
    fn tell(&mut self, outcome: &Outcome) {
        let is_cancelled = std::mem::take(&mut self.is_cancelled);
        let since = self.answered.and_then(|at| self.notes.get(at..)).unwrap_or_default();
        let printed = Some(outcome.printed.as_str()).filter(|printed| !printed.is_empty());
        let told: Vec<_> = if outcome.code == 0 {
            since.iter().map(String::as_str).chain(printed).collect()
        } else {
            printed.into_iter().chain([why_refused(outcome)]).collect()
        };
        let text = Zeroizing::new(told.join("\n"));
        self.said.clear();
        if is_cancelled || (outcome.code == 0 && text.lines().count() == 1) {
            self.said = text.lines().collect::<Vec<_>>().join(". ");
        } else {
            self.dialog = Some(Dialog::Said { text, scroll: 0 });
        }
        self.next = [Job::Look].into();
    }

    /// What the view shows.
    fn reading(&self) -> Job {
        match self.view {
            View::Passkeys | View::Bin => Job::Look,
            View::Doctor => Job::Doctor,
        }
    }

    /// Goes to a view, and reads what it shows.
    fn look(&mut self, view: View) -> Option<Effect> {
        if self.view != view {
            (self.view, self.chosen, self.trouble) = (view, 0, None);
            self.findings.clear();
            self.show_all();
        }
        self.said.clear();
        self.run(self.reading())
    }

    /// Now, or when what is being read is there.
    fn run(&mut self, job: Job) -> Option<Effect> {
        if self.running.is_some() {
            self.next.push_front(job);
            return None;
        }
        if !job.reads() {
            self.said.clear();
        }
        self.running = Some(job.clone());
        Some(Effect::Run(job))
    }

    /// Now, or when the command that runs has ended; asked again, at once.
    fn quit(&mut self) -> Option<Effect> {
        let at_once = self.running.is_none() || self.is_leaving;
        self.is_leaving = true;
        at_once.then_some(Effect::Quit)
    }

    fn choose(&mut self, at: usize) {
        self.chosen = at.min(self.lines().saturating_sub(1));
    }

    fn show_all(&mut self) {
        self.filter = Typed::new("");
        self.filter();
    }

    fn filter(&mut self) {
        let text = self.filter.text().to_lowercase();
        let fits = |passkey: &Entry| text.is_empty() || has(passkey, &text);
        self.shown = self.in_view().filter(|(_, passkey)| fits(passkey)).map(|(at, _)| at).collect();
        self.choose(self.chosen);
    }

    /// All that the view would show without a filter, and their places in `passkeys`.
    pub(super) fn in_view(&self) -> impl Iterator<Item = (usize, &Entry)> {
        let is_bin = self.view == View::Bin;
        self.passkeys.iter().enumerate().filter(move |(_, passkey)| passkey.binned.is_some() == is_bin)
    }
}

/// Whether it has this text, which is in lower case.
fn has(passkey: &Entry, text: &str) -> bool {
    let name = passkey.name.as_deref().unwrap_or_default();
    passhold::has([passkey.rp_id.as_str(), &passkey.user_name, &passkey.display_name, name], text)
}

fn why_refused(outcome: &Outcome) -> &str {
    outcome.refused.strip_prefix("passhold: ").unwrap_or(&outcome.refused)
}

#[cfg(test)]
mod tests;
