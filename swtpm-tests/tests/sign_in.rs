//! The README's sign-in with curl and passhold: just those lines, against the example's relying party.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::print_stdout,
    clippy::pedantic
)]

use std::{
    env, fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use swtpm_tests::{PIN, Passhold, Program, Terminal, TestTpm};

/// Where the README's lines expect the relying party.
const SITE: &str = "http://localhost:8080";

#[test]
fn the_readmes_sign_in_runs_line_by_line_as_it_stands() {
    let lines = readme_block("sh sign-in");
    assert_eq!(lines.matches(SITE).count(), 1, "the address stands in one place");
    let site = Site::start();
    let tpm = TestTpm::start().unwrap();
    let passhold = Passhold::new(&tpm.tcti());
    passhold.bare(["setup"]).env("PASSHOLD_TPM", tpm.tcti()).pin(PIN).run().expect_code(0);

    let mut command = Command::new("setsid");
    let path = [Program::Passhold.path().parent().unwrap().as_os_str(), &env::var_os("PATH").unwrap()]
        .join(":".as_ref());
    command
        .args(["--ctty", "bash", "-euo", "pipefail", "-c", &lines.replace(SITE, &site.url)])
        .current_dir(passhold.home())
        .env_clear()
        .env("PATH", path)
        .env("HOME", passhold.home())
        .env("PASSHOLD_TPM", tpm.tcti());
    let mut terminal = Terminal::start(command);
    terminal.wait_for("make a passkey for alice at localhost");
    terminal.wait_for("PIN: ");
    terminal.type_hidden(PIN);
    terminal.wait_for("sign in as alice at localhost");
    terminal.wait_for("PIN: ");
    terminal.type_hidden(PIN);
    assert_eq!(terminal.wait().code(), Some(0), "{}", terminal.screen());
    let screen = terminal.screen();
    let url = &site.url;
    let expected = format!(
        "passhold: make a passkey for alice at localhost, asked by {url}\nPIN: \npasshold: made passkey 1\n\
         {{\"registered\":\"alice\"}}\
         passhold: sign in as alice at localhost, asked by {url}\nPIN: \n\
         {{\"signedIn\":\"alice\"}}"
    );
    assert_eq!(screen, expected);
}

#[test]
fn the_site_has_a_page_for_browsers() {
    let site = Site::start();
    let page = Command::new("curl").args(["--silent", "--include", &site.url]).output().unwrap();
    let page = String::from_utf8(page.stdout).unwrap();
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
    assert!(page.contains("content-type: text/html"), "{page}");
    for endpoint in ["/register/start", "/register/finish", "/login/start", "/login/finish"] {
        assert!(page.contains(endpoint), "{endpoint}");
    }
}

/// The README's fenced block with this info string.
fn readme_block(info: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = fs::read_to_string(&path).unwrap();
    let blocks: Vec<_> = readme.split(&format!("```{info}\n")).skip(1).collect();
    assert_eq!(blocks.len(), 1, "README.md has one block marked {info:?}");
    blocks[0].split_once("```").expect("its end").0.to_owned()
}

/// A running relying party, ended with the test.
struct Site {
    child: Child,
    url: String,
}

impl Site {
    fn start() -> Self {
        let mut command = Command::new(Program::RelyingParty.path());
        let mut child = command.args(["--port", "0"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim_end().strip_prefix("listening on ").unwrap().to_owned();
        Self { child, url }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
