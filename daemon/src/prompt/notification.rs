//! A desktop notification, for somebody who looks elsewhere. Nothing hangs on it.

use std::{
    process::{Command, Stdio},
    thread,
};

pub(super) fn show(text: &str) {
    // Its text is markup (Desktop Notifications Specification), and a site has a say in ours.
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let mut program = Command::new("notify-send");
    program.args(["--app-name=Passhold", "--", "Passhold", &text]);
    let shown = program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    // Where it is not installed there is pinentry alone.
    if let Ok(mut child) = shown {
        thread::spawn(move || child.wait().ok());
    }
}
