//! Draws the model.

mod dialog;

use passhold::{Entry, Level, Standing, ago, date};
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Position, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Paragraph, Row, Table, TableState},
};
use vault_core::{TriesLeft, keystore::TpmKind, printable};

use super::{
    dialog::Dialog,
    json::Finding,
    model::{Model, View},
};

/// From here on there is room for details beside the list, or below it.
const WIDE: u16 = 100;
const HIGH: u16 = 20;
/// How high the details are below the list, in lines.
const DETAILS: u16 = 9;

/// More lines of keys are not shown: what matters stands first.
const MOST_KEY_LINES: u16 = 3;

/// How things look.
#[derive(Clone, Copy)]
pub(super) struct Look {
    /// Colours; without them all is told by words and weight.
    pub(super) colour: bool,
}

impl Look {
    fn fg(self, color: Color) -> Style {
        if self.colour { Style::new().fg(color) } else { Style::new() }
    }

    fn level(self, level: Level) -> Style {
        match level {
            Level::Ok => self.fg(Color::Green),
            Level::Warning => self.fg(Color::Yellow),
            Level::Problem => self.fg(Color::Red).bold(),
        }
    }
}

/// `now` is in seconds since 1970; `waited` is for how many seconds a command has run.
pub(super) fn draw(frame: &mut Frame<'_>, model: &mut Model, look: Look, now: u64, waited: u64) {
    let key_lines = key_lines(model, frame.area().width);
    let [head, body, said, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(1),
        Constraint::Length(u16::try_from(key_lines.len()).unwrap_or(u16::MAX).clamp(1, MOST_KEY_LINES)),
    ])
    .areas(frame.area());
    frame.render_widget(headline(model, look), head);
    draw_body(frame, body, model, look, now);
    frame.render_widget(last_words(model, waited), said);
    frame.render_widget(Paragraph::new(key_lines), keys);
    if is_filtering(model) {
        let x = u16::try_from(Line::raw(filter_line(model)).width()).unwrap_or(u16::MAX);
        frame.set_cursor_position(Position::new(x.min(said.width.saturating_sub(1)), said.y));
    }
    dialog::draw(frame, model, now);
}

fn headline(model: &Model, look: Look) -> Line<'static> {
    let title = match model.view {
        View::Passkeys => "Passhold",
        View::Bin => "Passhold: the bin",
        View::Doctor => "Passhold: doctor",
    };
    let mut spans = vec![Span::styled(title, Modifier::BOLD)];
    if model.view != View::Doctor && model.standing.is_some() {
        let (shown, all) = (model.shown.len(), model.in_view().count());
        let s = if all == 1 { "" } else { "s" };
        let of = if model.filter.text().is_empty() { String::new() } else { format!("{shown} of ") };
        spans.push(format!("  {of}{all} passkey{s}").into());
    }
    if let Some(Standing { tries, kind, model }) = &model.standing {
        let counted = if matches!(tries, TriesLeft::ByTpm(_)) { "" } else { " by Passhold's own count" };
        let (tries, style) = match tries.count() {
            0 => ("the PIN is locked".to_owned(), look.level(Level::Problem)),
            1 => (format!("1 PIN try left{counted}"), look.level(Level::Warning)),
            left => (format!("{left} PIN tries left{counted}"), Style::new()),
        };
        spans.extend(["  ".into(), Span::styled(tries, style)]);
        let (kind, style) = match kind {
            TpmKind::Discrete => ("discrete", Style::new()),
            TpmKind::Firmware => ("firmware", Style::new()),
            TpmKind::Software => ("software", look.level(Level::Warning)),
        };
        let model = model.split_whitespace().collect::<Vec<_>>().join(" ");
        spans.extend(["  ".into(), Span::styled(format!("{} ({kind})", printable(&model)), style)]);
    }
    Line::from(spans)
}

fn draw_body(frame: &mut Frame<'_>, area: Rect, model: &mut Model, look: Look, now: u64) {
    if let Some(trouble) = model.trouble.as_ref().or(nothing(model).as_ref()) {
        return frame.render_widget(lines(trouble, area.width), area);
    }
    let (list, details) = if area.width >= WIDE {
        let [list, details] =
            Layout::horizontal([Constraint::Fill(3), Constraint::Fill(2)]).spacing(2).areas(area);
        (list, Some(details))
    } else if area.height >= HIGH {
        let [list, details] =
            Layout::vertical([Constraint::Min(1), Constraint::Length(DETAILS)]).spacing(1).areas(area);
        (list, Some(details))
    } else {
        (area, None)
    };
    let is_doctor = model.view == View::Doctor;
    // Of many passkeys only those that are seen are drawn.
    let height = usize::from(list.height.saturating_sub(u16::from(!is_doctor)));
    model.page = height.max(1);
    model.top = model.top.clamp((model.chosen + 1).saturating_sub(model.page), model.chosen);
    let rows: Vec<_> = if is_doctor {
        model.findings.iter().skip(model.top).take(height).map(|finding| finding_row(finding, look)).collect()
    } else {
        let seen = model.shown.iter().skip(model.top).take(height);
        seen.filter_map(|&at| model.passkeys.get(at)).map(|passkey| row(passkey, list.width, now)).collect()
    };
    let table = if is_doctor {
        Table::new(rows, [Constraint::Length(8), Constraint::Length(18), Constraint::Fill(1)])
    } else {
        Table::new(rows, columns(list.width)).header(header(model.view, list.width))
    };
    let table = table.row_highlight_style(Modifier::REVERSED);
    let mut state = TableState::new().with_selected(model.chosen - model.top);
    frame.render_stateful_widget(table, list, &mut state);
    if let Some(area) = details {
        frame.render_widget(lines(&about(model, now), area.width), area);
    }
}

/// What is said where there is nothing to list.
fn nothing(model: &Model) -> Option<String> {
    if model.lines() > 0 {
        return None;
    }
    let text = match model.view {
        _ if model.standing.is_none() => "",
        View::Passkeys | View::Bin if !model.filter.text().is_empty() => "No such passkeys.",
        View::Passkeys => {
            "No passkeys yet.\nSites make them through the browser, or \"passhold enroll\" does."
        }
        View::Bin => "The bin is empty.",
        View::Doctor => "",
    };
    Some(text.to_owned())
}

/// What there is room for; the last column only on a line that is not a narrow terminal's.
fn columns(width: u16) -> Vec<Constraint> {
    let (id, text, time) = (Constraint::Length(6), Constraint::Fill(1), Constraint::Length(14));
    if width < 60 { vec![id, text, text] } else { vec![id, text, text, time] }
}

fn header(view: View, width: u16) -> Row<'static> {
    let time = if view == View::Bin { "DELETED" } else { "USED" };
    let cells = ["ID", "SITE", "ACCOUNT", time];
    Row::new(cells.into_iter().take(columns(width).len())).style(Modifier::BOLD)
}

fn row(passkey: &Entry, width: u16, now: u64) -> Row<'static> {
    let time = passkey.binned.map_or_else(|| used(passkey, now), |at| ago(at, now));
    let cells = [passkey.id.to_string(), printable(&passkey.rp_id), printable(passkey.name()), time];
    Row::new(cells.into_iter().take(columns(width).len()))
}

fn used(passkey: &Entry, now: u64) -> String {
    let unknown = if passkey.never_used { "never" } else { "?" };
    passkey.last_used.map_or_else(|| unknown.to_owned(), |at| ago(at, now))
}

/// All about what is chosen.
fn about(model: &Model, now: u64) -> String {
    match (model.finding(), model.passkey()) {
        (Some(finding), _) => about_finding(finding),
        (None, Some(passkey)) => about_passkey(passkey, now),
        (None, None) => String::new(),
    }
}

fn about_passkey(passkey: &Entry, now: u64) -> String {
    let mut about = vec![
        ("Site", format!("{} ({})", printable(&passkey.rp_id), printable(&passkey.rp_name))),
        ("Account", format!("{} ({})", printable(&passkey.user_name), printable(&passkey.display_name))),
        ("Name", passkey.name.as_deref().map_or_else(|| "-".to_owned(), printable)),
        ("Takes", passkey.takes.to_string()),
        ("Made", date(passkey.created)),
    ];
    about.push(passkey.binned.map_or_else(|| ("Used", used(passkey, now)), |at| ("Deleted", ago(at, now))));
    about.push(("Credential", printable(&passkey.credential_id)));
    about.iter().map(|(label, value)| format!("{label:<11}{value}")).collect::<Vec<_>>().join("\n")
}

fn finding_row(finding: &Finding, look: Look) -> Row<'static> {
    let word = Span::styled(finding.level.word(), look.level(finding.level));
    Row::new([Line::from(word), printable(&finding.id).into(), printable(&finding.found).into()])
}

fn about_finding(finding: &Finding) -> String {
    let mend = finding.mend.as_ref().map(|mend| format!("mend: {mend}"));
    [Some(finding.found.clone()), Some(finding.why.clone()), mend]
        .into_iter()
        .flatten()
        .filter(|text| !text.is_empty())
        .collect::<Vec<_>>()
        .join("\n")
}

fn last_words(model: &Model, waited: u64) -> Line<'static> {
    if is_filtering(model) {
        return filter_line(model).into();
    }
    match (&model.running, &model.dialog) {
        (Some(_), None) if waited > 0 => format!("waiting for the TPM, {waited} s").into(),
        _ if !model.said.is_empty() => printable(&model.said).into(),
        _ if !model.filter.text().is_empty() => filter_line(model).into(),
        _ => Line::default(),
    }
}

fn is_filtering(model: &Model) -> bool {
    matches!(model.dialog, Some(Dialog::Filter))
}

fn filter_line(model: &Model) -> String {
    format!("filter: {}", printable(model.filter.text()))
}

/// The keys, on as many lines as they take.
fn key_lines(model: &Model, width: u16) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    let mut line = Line::default();
    for (key, what) in model.keys() {
        if line.width() > 0 {
            if line.width() + 2 + key.len() + 1 + what.len() > usize::from(width) {
                lines.push(std::mem::take(&mut line));
            } else {
                line.push_span("  ");
            }
        }
        line.extend([Span::styled(key, Modifier::BOLD), Span::raw(" "), Span::raw(what)]);
    }
    lines.push(line);
    lines
}

fn lines(text: &str, width: u16) -> Paragraph<'static> {
    Paragraph::new(wrapped(text, width).into_iter().map(Line::raw).collect::<Vec<_>>())
}

/// Text that may be anybody's, in lines of this width.
fn wrapped(text: &str, width: u16) -> Vec<String> {
    let wrap = |line: &str| {
        let line = printable(line);
        textwrap::wrap(&line, usize::from(width))
            .into_iter()
            .map(std::borrow::Cow::into_owned)
            .collect::<Vec<_>>()
    };
    text.lines().flat_map(wrap).collect()
}
