#![expect(clippy::expect_used, reason = "a test without a terminal cannot go on")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::passhold::comes_true;

/// A terminal that draws what it is told, with a shell in it and a person before it: tmux. Killed on drop.
#[derive(Debug)]
pub struct Tmux {
    dir: TempDir,
}

impl Tmux {
    /// So many columns and rows. The shell's working directory is `home`, and it has only these variables besides.
    ///
    /// # Panics
    /// If tmux does not start.
    #[must_use]
    pub fn start(home: &Path, (columns, rows): (u16, u16)) -> Self {
        let tmux = Self { dir: tempfile::tempdir().expect("a temporary folder") };
        let path = std::env::var("PATH").unwrap_or_default();
        let shell = format!(
            "cd '{home}' && exec env -i HOME='{home}' PATH='{path}' TZ=UTC LANG=C.UTF-8 TERM=\"$TERM\" PS1='$ ' sh -i",
            home = home.display()
        );
        let (columns, rows) = (columns.to_string(), rows.to_string());
        tmux.run(&["-f", "/dev/null", "-u", "new-session", "-d", "-x", &columns, "-y", &rows, &shell]);
        tmux.wait_for("$");
        tmux
    }

    /// What a person sees, line by line.
    #[must_use]
    pub fn screen(&self) -> String {
        let screen = self.run(&["capture-pane", "-p"]);
        screen.lines().map(str::trim_end).collect::<Vec<_>>().join("\n").trim_end().to_owned()
    }

    /// The same with its colours and weights, as escape sequences.
    #[must_use]
    pub fn coloured(&self) -> String {
        self.run(&["capture-pane", "-p", "-e"])
    }

    /// Waits until this is seen, and returns the whole screen.
    ///
    /// # Panics
    /// If it does not appear.
    #[track_caller]
    #[expect(clippy::must_use_candidate, reason = "an assertion")]
    pub fn wait_for(&self, text: &str) -> String {
        self.wait_until(text, |screen| screen.contains(text))
    }

    /// Waits until the screen is so, and returns it.
    ///
    /// # Panics
    /// If it does not become so.
    #[track_caller]
    pub fn wait_until(&self, what: &str, is: impl Fn(&str) -> bool) -> String {
        let mut screen = String::new();
        let seen = comes_true(|| {
            screen = self.screen();
            is(&screen)
        });
        assert!(seen, "not on the screen: {what}\n{screen}");
        screen
    }

    /// Types a secret as soon as it is asked for, and sees as many dots.
    ///
    /// # Panics
    /// If it is not asked for, or can be read.
    #[track_caller]
    pub fn type_hidden(&self, prompt: &str, secret: &str) {
        self.wait_for(prompt);
        self.type_text(secret);
        let screen = self.wait_for(&format!("{prompt}{}", "•".repeat(secret.chars().count())));
        assert!(!screen.contains(secret), "{screen}");
    }

    /// Types this text.
    pub fn type_text(&self, text: &str) {
        self.run(&["send-keys", "-l", "--", text]);
    }

    /// Presses keys by tmux's names for them, such as `Enter`, `C-c`, `Down`.
    pub fn press(&self, keys: &[&str]) {
        self.run(&[&["send-keys"], keys].concat());
    }

    /// Types a line.
    pub fn type_line(&self, line: &str) {
        self.type_text(line);
        self.press(&["Enter"]);
    }

    /// Makes the window another size.
    pub fn resize(&self, (columns, rows): (u16, u16)) {
        self.run(&["resize-window", "-x", &columns.to_string(), "-y", &rows.to_string()]);
    }

    /// The process that the shell runs.
    ///
    /// # Panics
    /// If it runs none.
    #[must_use]
    pub fn child(&self) -> u32 {
        let shell = self.run(&["display-message", "-p", "#{pane_pid}"]);
        let shell = shell.trim();
        let children = fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).expect("a shell");
        children.split(' ').next().and_then(|pid| pid.parse().ok()).expect("a program that it runs")
    }

    /// Closes the terminal.
    pub fn close(&self) {
        self.run(&["kill-server"]);
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("tmux")
    }

    fn run(&self, args: &[&str]) -> String {
        let output = Command::new("tmux").arg("-S").arg(self.socket()).args(args).output().expect("tmux");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        self.close();
    }
}
