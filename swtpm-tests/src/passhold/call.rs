use std::{
    ffi::{OsStr, OsString},
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{Program, Terminal};
use crate::Tmux;

/// One run of `passhold`, being put together. It has no terminal unless [`Call::on_terminal`] gives it one.
#[derive(Debug)]
pub struct Call {
    home: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    /// `sh` redirections, such as `3<'/tmp/x'`.
    redirections: String,
    /// What runs the program, such as strace.
    runner: String,
    stdin: Vec<u8>,
    then: Option<String>,
}

impl Call {
    pub(super) fn new(home: &Path, args: impl IntoIterator<Item = OsString>) -> Self {
        Self {
            home: home.to_owned(),
            args: args.into_iter().collect(),
            env: Vec::new(),
            redirections: String::new(),
            runner: String::new(),
            stdin: Vec::new(),
            then: None,
        }
    }

    /// Gives these lines on descriptor 3, with `--pin-fd 3`.
    #[must_use]
    pub fn pin(self, lines: &str) -> Self {
        self.secret("--pin-fd", 3, lines)
    }

    /// Gives this line on descriptor 4, with `--owner-auth-fd 4`.
    #[must_use]
    pub fn owner_auth(self, line: &str) -> Self {
        self.secret("--owner-auth-fd", 4, line)
    }

    fn secret(mut self, option: &str, fd: u32, lines: &str) -> Self {
        let path = self.file(format!("{lines}\n").as_bytes());
        self.args.extend([option.into(), fd.to_string().into()]);
        self.redirect(&format!("{fd}<'{}'", path.display()))
    }

    /// Gives the relying party's options in a file, with `--options`.
    #[must_use]
    pub fn options(self, json: &str) -> Self {
        let path = self.file(json.as_bytes());
        self.arg("--options").arg(path)
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// What stands on standard input; nothing otherwise.
    #[must_use]
    pub fn stdin(mut self, input: impl AsRef<[u8]>) -> Self {
        input.as_ref().clone_into(&mut self.stdin);
        self
    }

    /// One more redirection of `sh`.
    #[must_use]
    pub fn redirect(mut self, redirection: &str) -> Self {
        self.redirections.push(' ');
        self.redirections.push_str(redirection);
        self
    }

    /// Has this command line run the program.
    #[must_use]
    pub fn under(mut self, runner: &str) -> Self {
        runner.clone_into(&mut self.runner);
        self
    }

    /// One more environment variable. Only PATH, HOME and TZ are set.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// What `sh` does afterwards on the same terminal, whatever the program ended by.
    #[must_use]
    pub fn then(mut self, script: &str) -> Self {
        self.then = Some(script.to_owned());
        self
    }

    /// A new file in the home folder, that nobody else names.
    fn file(&self, contents: &[u8]) -> PathBuf {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let path = self.home.join(format!("input-{}", NUMBER.fetch_add(1, Ordering::Relaxed)));
        fs::write(&path, contents).expect("a file in the home folder");
        path
    }

    /// `sh` only redirects, and becomes the program; `setsid` takes the terminal away, or gives a new one.
    fn command(&self, setsid: &[&str]) -> Command {
        let run = format!("{} \"$0\" \"$@\" {}", self.runner, self.redirections);
        let script = match &self.then {
            Some(then) => format!("trap : INT; {run}; code=$?; {then}"),
            None => format!("exec {run}"),
        };
        let mut command = Command::new("/usr/bin/setsid");
        command
            .args(setsid)
            // Whoever runs the tests may have set signals to be ignored: nohup, a background job.
            .args(["/usr/bin/env", "--default-signal", "/bin/sh", "-c", &script])
            .arg(Program::Passhold.path())
            .args(&self.args)
            .current_dir(&self.home)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &self.home)
            .env("TZ", "UTC")
            .envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn run(self) -> Run {
        let mut running = self.start();
        running.send(&self.stdin);
        running.wait()
    }

    /// Starts it; [`Running::send`] is its standard input.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn start(&self) -> Running {
        let mut command = self.command(&[]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Running(command.spawn().expect("setsid of util-linux"))
    }

    /// Starts it on a terminal of its own.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn on_terminal(&self) -> Terminal {
        Terminal::start(self.command(&["--ctty"]))
    }

    /// The same on one that is so many columns wide.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn on_terminal_of(&self, columns: u16) -> Terminal {
        Terminal::start_with(self.command(&["--ctty"]), columns)
    }

    /// Has a person type it at the shell of a terminal of so many columns and rows.
    #[must_use]
    pub fn in_tmux(&self, size: (u16, u16)) -> Tmux {
        let quoted = |word: &OsStr| format!(" '{}'", word.to_string_lossy().replace('\'', r"'\''"));
        let variables =
            self.env.iter().map(|(name, value)| format!(" {}={}", name.display(), quoted(value).trim()));
        let words = [Program::Passhold.path().into_os_string()];
        let words = words.iter().chain(&self.args).map(|word| quoted(word));
        let line: String = ["exec env".to_owned()].into_iter().chain(variables).chain(words).collect();
        let script = self.file(format!("{line}{}\n", self.redirections).as_bytes());
        let tmux = Tmux::start(&self.home, size);
        tmux.type_line(&format!("sh {}; echo exit $?", script.file_name().unwrap_or_default().display()));
        tmux
    }
}

/// A running `passhold`, killed on drop.
#[derive(Debug)]
pub struct Running(Child);

impl Running {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Writes to its standard input, which stays open until [`Running::wait`].
    ///
    /// # Panics
    /// If it has no standard input.
    pub fn send(&mut self, input: &[u8]) {
        let stdin = self.0.stdin.as_mut().expect("a pipe");
        // A program that refuses early closes its input; what it says is the test's matter.
        drop(stdin.write_all(input));
    }

    /// Waits until it has said this on standard error, and returns all it has said so far.
    ///
    /// # Panics
    /// If it ends without saying it.
    pub fn wait_for(&mut self, text: &str) -> String {
        let stderr = self.0.stderr.as_mut().expect("a pipe");
        let (mut said, mut byte) = (Vec::new(), [0]);
        while !said.ends_with(text.as_bytes()) {
            let read = stderr.read(&mut byte).expect("its standard error");
            assert_eq!(read, 1, "it ended after {:?}", String::from_utf8_lossy(&said));
            said.extend(byte);
        }
        String::from_utf8(said).expect("UTF-8")
    }

    /// Sends a signal, such as `INT`.
    ///
    /// # Panics
    /// If it is gone.
    pub fn signal(&self, name: &str) {
        let kill = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status();
        assert!(kill.expect("kill").success());
    }

    /// Closes its standard input and waits for its end.
    ///
    /// # Panics
    /// If its output is not UTF-8.
    #[must_use]
    pub fn wait(mut self) -> Run {
        drop(self.0.stdin.take());
        let mut stdout = self.0.stdout.take().expect("a pipe");
        // A thread of its own, so that neither pipe fills up while the other is read.
        let stdout = std::thread::spawn(move || {
            let mut text = String::new();
            stdout.read_to_string(&mut text).map(|_| text)
        });
        let mut stderr = String::new();
        self.0.stderr.take().expect("a pipe").read_to_string(&mut stderr).expect("UTF-8");
        let stdout = stdout.join().expect("a reader").expect("UTF-8");
        Run { status: self.0.wait().expect("a child"), stdout, stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// What a run came to.
#[derive(Debug)]
pub struct Run {
    /// How it ended.
    pub status: ExitStatus,
    /// Its result.
    pub stdout: String,
    /// What it said besides.
    pub stderr: String,
}

impl Run {
    /// The exit code; none if a signal ended it.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Itself, if this was the exit code.
    ///
    /// # Panics
    /// If it was another.
    #[track_caller]
    #[expect(clippy::return_self_not_must_use, clippy::must_use_candidate, reason = "an assertion")]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code(), Some(code), "stdout {:?}\nstderr {:?}", self.stdout, self.stderr);
        self
    }

    /// Standard output as JSON.
    ///
    /// # Panics
    /// If it is anything besides one line of it.
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> Value {
        assert_eq!(self.stdout.lines().count(), 1, "stdout {:?}\nstderr {:?}", self.stdout, self.stderr);
        serde_json::from_str(&self.stdout).expect("JSON alone")
    }

    /// The error of `--json`: the last line of standard error.
    ///
    /// # Panics
    /// If it is none.
    #[must_use]
    #[track_caller]
    pub fn error(&self) -> Value {
        let last = self.stderr.lines().last().unwrap_or_default();
        let mut json: Value =
            serde_json::from_str(last).unwrap_or_else(|e| panic!("{e}: stderr {:?}", self.stderr));
        json.get_mut("error").map(Value::take).expect("an error")
    }
}

/// Repeats `look` until it is true.
///
/// # Panics
/// If that takes more than half a minute.
pub(super) fn wait_until(what: &str, look: impl FnMut() -> bool) {
    assert!(comes_true(look), "still not: {what}");
}

/// Whether `look` becomes true within half a minute.
pub(crate) fn comes_true(mut look: impl FnMut() -> bool) -> bool {
    let started = Instant::now();
    loop {
        if look() {
            return true;
        }
        if started.elapsed() > Duration::from_secs(30) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
