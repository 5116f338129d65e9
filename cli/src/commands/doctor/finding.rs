//! What was looked at, and what came of it.

use std::{borrow::Cow, fmt::Write as _};

use anstyle::{AnsiColor, Style};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{app::App, failure::Failure};

/// One line of the page. Between two processes it is this; scripts get [`Finding::to_json`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Finding {
    pub(super) group: Group,
    /// Stable: scripts know it by this.
    pub(super) id: Cow<'static, str>,
    pub(super) level: Level,
    pub(super) found: String,
    pub(super) why: String,
    pub(super) mend: Option<Mend>,
    /// Whether this process found it. What another says mends it, `--fix` does not do.
    #[serde(skip)]
    pub(super) ours: bool,
}

/// The parts of the page, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Group {
    Tpm,
    Vault,
    Device,
}

/// How `doctor` found something. The worst one decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Worth knowing.
    Warning,
    /// In the way.
    Problem,
}

/// What makes a line ok, and who may do it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Mend {
    /// Costs nothing: `--fix` does it too.
    Safe(String),
    /// So do these, as root.
    Root(Vec<String>),
    /// As these: passholdd's udev rule is written.
    UdevRule,
    /// The storage root key is put back: `--fix` does it.
    Srk,
    /// Another key is taken out of its place first: whoever put it there may need it.
    Evict,
    /// May cost something: left to the person.
    Shell(String),
    /// tpm2-tools, with these words.
    Tool(Vec<String>),
    /// The TPM's lockout is set as it should be.
    Harden,
    /// The same, by the authorization that it has.
    HardenAnew,
    /// `passhold` with each of these.
    Passhold(Vec<String>),
}

impl Finding {
    pub(super) fn new(
        group: Group,
        id: &'static str,
        level: Level,
        found: impl Into<String>,
        why: &'static str,
    ) -> Self {
        Self { group, id: id.into(), level, found: found.into(), why: why.into(), mend: None, ours: true }
    }

    /// What kept it from being looked at.
    pub(super) fn failed(group: Group, id: &'static str, failure: &Failure) -> Self {
        let (found, why) = failure.parts();
        Self { group, id: id.into(), level: Level::Problem, found, why, mend: None, ours: true }
    }

    pub(super) fn mended_by(self, mend: Mend) -> Self {
        Self { mend: Some(mend), ..self }
    }

    pub(super) fn to_json(&self, app: &App<'_>) -> Value {
        let Self { group, id, level, found, why, mend, .. } = self;
        let mend = mend.as_ref().map(|mend| mend.command(app));
        let group = group.title().to_lowercase();
        json!({"group": group, "id": id, "level": level, "found": found, "why": why, "mend": mend})
    }
}

impl Mend {
    /// For a shell.
    pub(super) fn command(&self, app: &App<'_>) -> String {
        match self {
            Self::Safe(command) | Self::Shell(command) => command.clone(),
            Self::Root(commands) if rustix::process::geteuid().is_root() => commands.join(" && "),
            Self::Root(commands) => {
                commands.iter().map(|c| format!("sudo {c}")).collect::<Vec<_>>().join(" && ")
            }
            Self::Passhold(commands) => {
                let passhold = |command| format!("{} {command}", app.invocation);
                commands.iter().map(passhold).collect::<Vec<_>>().join(" && ")
            }
            Self::UdevRule if rustix::process::geteuid().is_root() => {
                format!("{} doctor --fix", app.invocation)
            }
            Self::UdevRule => "sudo passhold --direct doctor --fix".to_owned(),
            // passholdd puts it back whenever it opens a vault, whose file alone says which one it was.
            Self::Srk if app.daemon.is_some() => format!("{} list", app.invocation),
            Self::Srk => format!("{} doctor --fix", app.invocation),
            Self::Evict => {
                let evict = Self::tool(&["evictcontrol -C o -c 0x81000001"]);
                format!("{} && {}", evict.command(app), Self::Srk.command(app))
            }
            Self::Tool(commands) => {
                // Where passholdd has the TPM, people do not.
                let may = app.daemon.is_none() || rustix::process::geteuid().is_root();
                let sudo = if may { "" } else { "sudo " };
                commands.iter().map(|c| format!("{sudo}tpm2_{c}")).collect::<Vec<_>>().join(" && ")
            }
            Self::Harden => format!("{} doctor harden", Self::on_the_tpm(app)),
            // sudo closes what the shell has opened.
            Self::HardenAnew => {
                format!("{} doctor harden --yes --lockout-auth-fd 0 <FILE", Self::on_the_tpm(app))
            }
        }
    }

    pub(super) fn tool(commands: &[&str]) -> Self {
        Self::Tool(commands.iter().map(|&command| command.to_owned()).collect())
    }

    pub(super) fn passhold(commands: &[&str]) -> Self {
        Self::Passhold(commands.iter().map(|&command| command.to_owned()).collect())
    }

    /// passholdd lets nobody change the TPM that all share.
    fn on_the_tpm<'a>(app: &'a App<'_>) -> &'a str {
        if app.daemon.is_some() { "sudo passhold --direct" } else { &app.invocation }
    }
}

impl Group {
    const ALL: [Self; 3] = [Self::Tpm, Self::Vault, Self::Device];

    fn title(self) -> &'static str {
        match self {
            Self::Tpm => "TPM",
            Self::Vault => "Vault",
            Self::Device => "Device",
        }
    }
}

impl Level {
    /// In one word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }

    fn style(self) -> Style {
        match self {
            Self::Ok => AnsiColor::Green,
            Self::Warning => AnsiColor::Yellow,
            Self::Problem => AnsiColor::Red,
        }
        .on_default()
    }
}

/// Below what was found.
const MARGIN: &str = "                             ";

/// One line for what is ok; for the rest why it matters and what mends it. Styled, for whoever prints it to see to.
pub(super) fn page(findings: &[Finding], app: &App<'_>) -> String {
    let mut page = String::new();
    // Whoever took passholdd over does not take the terminal over too: nothing but our own styles goes to it.
    let mut line = |before: &str, text: &str| writeln!(page, "{before}{}", vault_core::printable(text)).ok();
    for group in Group::ALL {
        line("", group.title());
        for Finding { id, level, found, why, mend, .. } in findings.iter().filter(|f| f.group == group) {
            let (word, style) = (level.word(), level.style());
            line(&format!("  {style}{word:<8}{style:#} "), &format!("{id:<18}{found}"));
            if *level != Level::Ok {
                line(MARGIN, why);
            }
            if let Some(mend) = mend {
                line(MARGIN, &format!("mend: {}", mend.command(app)));
            }
        }
    }
    page.trim_end().to_owned()
}

/// A word for a shell.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "%+,-./:=@_".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_a_quoted_word_as_it_was() {
        for (word, expected) in [
            ("/home/alice/vault", "/home/alice/vault"),
            ("/home/alice/my vault", "'/home/alice/my vault'"),
            ("it's", r"'it'\''s'"),
            ("$(reboot)", "'$(reboot)'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(word), expected);
            let echo =
                std::process::Command::new("sh").args(["-c", &format!("printf %s {expected}")]).output();
            assert_eq!(echo.unwrap().stdout, word.as_bytes());
        }
    }
}
