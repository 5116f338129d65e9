//! A vault and its TPM to be made ill, looked at, and mended as the page says.
#![allow(dead_code)]

use std::{collections::BTreeMap, path::Path, process::Command};

use serde_json::Value;
use swtpm_tests::{Call, PIN, Passhold, Program, Terminal, TestTpm};

/// One line of the page.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) level: String,
    pub(crate) found: String,
    pub(crate) mend: Option<String>,
}

pub(crate) struct Patient {
    pub(crate) passhold: Passhold,
    pub(crate) tpm: TestTpm,
    /// The recovery code, if it has one.
    pub(crate) code: String,
    runner: &'static str,
}

/// Somebody who mends nothing of the machine.
pub(crate) const AS_USER: &str = "setpriv --reuid 31001 --regid 31001 --clear-groups";

impl Patient {
    pub(crate) fn empty() -> Self {
        let tpm = TestTpm::start().unwrap();
        Self::on(Passhold::new(&tpm.tcti()), tpm)
    }

    pub(crate) fn on(passhold: Passhold, tpm: TestTpm) -> Self {
        Self { passhold, tpm, code: String::new(), runner: "" }
    }

    pub(crate) fn with_vault() -> Self {
        Self::empty().set_up()
    }

    pub(crate) fn set_up(mut self) -> Self {
        let made = self.passhold.call(["--json", "setup"]).pin(PIN).run().expect_code(0).json();
        made["recoveryCode"].as_str().unwrap().clone_into(&mut self.code);
        self
    }

    /// What mends is run by somebody who is not root.
    pub(crate) fn for_user(mut self) -> Self {
        let chown = Command::new("chown").args(["-R", "31001:31001"]).arg(self.passhold.home()).status();
        assert!(chown.unwrap().success());
        self.runner = AS_USER;
        self
    }

    /// The vault's index of this many bytes.
    pub(crate) fn index(&self, size: u16) -> String {
        let listed = self.tpm.tool("tpm2_getcap", &["handles-nv-index"]).unwrap().stdout;
        let listed = String::from_utf8(listed).unwrap();
        let public = |index: &str| self.tpm.tool("tpm2_nvreadpublic", &[index]).unwrap().stdout;
        let is_it =
            |index: &&str| String::from_utf8(public(index)).unwrap().contains(&format!("size: {size}\n"));
        listed.lines().map(|line| line.trim_start_matches("- ")).find(is_it).unwrap().to_owned()
    }

    pub(crate) fn tool(&self, program: &str, args: &[&str]) {
        let done = self.tpm.tool(program, args).unwrap();
        assert!(done.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&done.stderr));
    }

    pub(crate) fn doctor(&self) -> Call {
        self.passhold.call(["doctor", "--json"])
    }

    /// The line, which may not be there.
    pub(crate) fn look(&self, id: &str) -> Option<Line> {
        lines(self.doctor()).remove(id)
    }

    #[track_caller]
    pub(crate) fn line(&self, id: &str) -> Line {
        self.look(id).unwrap_or_else(|| panic!("no line {id}"))
    }

    /// The line is so, and nothing is printed that would mend it.
    #[track_caller]
    pub(crate) fn is(&self, id: &str, level: &str, found: &str) {
        let line = self.line(id);
        assert_eq!((line.level.as_str(), line.found.as_str(), line.mend), (level, found, None), "{id}");
    }

    /// The line is so and says what mends it; that is done as it is printed, and the line is ok.
    #[track_caller]
    pub(crate) fn is_mended(&self, id: &str, level: &str, found: &str, answers: &[Answer<'_>]) {
        let line = self.line(id);
        assert_eq!((line.level.as_str(), line.found.as_str()), (level, found), "{id}");
        let mend = line.mend.unwrap_or_else(|| panic!("{id}: nothing mends it"));
        self.shell(&mend, answers);
        let line = self.line(id);
        assert_eq!(line.level, "ok", "{id} after {mend}: {line:?}");
    }

    /// Runs `script` with `sh -c` on a terminal at which this is typed.
    #[track_caller]
    pub(crate) fn shell(&self, script: &str, answers: &[Answer<'_>]) {
        let call = self.passhold.bare(["--version"]);
        let call = call.env("PATH", path()).env("TPM2TOOLS_TCTI", self.tpm.tcti());
        let run = format!("{} sh -c \"$MEND\"", self.runner);
        typed(call.env("MEND", script).then(&run).on_terminal(), script, answers);
    }

    pub(crate) fn file(&self) -> std::path::PathBuf {
        self.passhold.vault().join("vault.db")
    }
}

/// What a person types.
pub(crate) enum Answer<'a> {
    /// Hidden, as soon as typing is.
    Pin(&'a str),
    /// The same after another prompt.
    Hidden(&'a str, &'a str),
    /// After this question.
    To(&'a str, &'a str),
}

pub(crate) const PIN_TWICE: [Answer<'_>; 2] = [Answer::Pin(PIN), Answer::Pin(PIN)];
/// The vault is wiped, and another one made.
pub(crate) const ANEW: [Answer<'_>; 3] =
    [Answer::To("to destroy the vault in", "wipe"), Answer::Pin(PIN), Answer::Pin(PIN)];
pub(crate) const YES: [Answer<'_>; 1] = [Answer::To("[y/N] ", "y")];
pub(crate) const WRITTEN: [Answer<'_>; 1] = [Answer::To("once it is: ", "written down")];

#[track_caller]
pub(crate) fn typed(mut terminal: Terminal, script: &str, answers: &[Answer<'_>]) {
    let mut prompts = ["PIN: ", "more: "].iter().cycle();
    for answer in answers {
        match answer {
            Answer::Pin(pin) => {
                terminal.wait_for(prompts.next().unwrap());
                terminal.type_hidden(pin);
            }
            Answer::Hidden(prompt, text) => {
                terminal.wait_for(prompt);
                terminal.type_hidden(text);
            }
            Answer::To(question, answer) => {
                terminal.wait_for(question);
                terminal.type_line(answer);
            }
        }
    }
    let ended = terminal.wait();
    assert!(ended.success() || ended.code() == Some(19), "{script}: {ended}: {}", terminal.screen());
}

/// The lines of a page; the exit code is the worst one's.
#[track_caller]
pub(crate) fn lines(call: Call) -> BTreeMap<String, Line> {
    let run = call.run();
    let json: Value = serde_json::from_str(&run.stdout).unwrap_or_else(|e| panic!("{e}: {run:?}"));
    let text = |finding: &Value, field: &str| finding[field].as_str().unwrap().to_owned();
    let lines: BTreeMap<_, _> = json["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| {
            assert_ne!(finding["why"], "", "{finding}");
            let mend = finding["mend"].as_str().map(str::to_owned);
            let (level, found) = (text(finding, "level"), text(finding, "found"));
            (text(finding, "id"), Line { level, found, mend })
        })
        .collect();
    let any = |level: &str| lines.values().any(|line| line.level == level);
    let code = if any("problem") {
        20
    } else if any("warning") {
        19
    } else {
        0
    };
    assert_eq!(run.code(), Some(code), "{run:?}");
    lines
}

/// With the programs of this workspace.
pub(crate) fn path() -> String {
    let programs = Program::Passhold.path();
    format!("{}:{}", Path::new(&programs).parent().unwrap().display(), std::env::var("PATH").unwrap())
}
