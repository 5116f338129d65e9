use std::{
    fs::File,
    io::{Read, Write},
    process::{Child, Command, ExitStatus},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
};

use rustix::{
    pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt},
    termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize},
};

use super::call::wait_until;

/// A program on a terminal of its own, with a person at the keyboard. Killed on drop.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    keyboard: File,
    screen: Arc<Mutex<Vec<u8>>>,
    /// How much of the screen [`Terminal::wait_for`] has passed.
    seen: usize,
    reader: Option<JoinHandle<()>>,
}

impl Terminal {
    /// Starts `setsid --ctty …` on a new terminal.
    ///
    /// # Panics
    /// If the system has no terminal to give.
    #[must_use]
    pub fn start(command: Command) -> Self {
        Self::start_with(command, 0)
    }

    /// The same, where the terminal is so many columns wide; 0 is one that does not know.
    ///
    /// # Panics
    /// If the system has no terminal to give.
    #[must_use]
    pub fn start_with(mut command: Command, columns: u16) -> Self {
        let ours = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(ours).expect("a terminal");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("its other end");
        let line = ioctl_tiocgptpeer(&master, ours).expect("its other end");
        let size = Winsize { ws_row: 0, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).expect("a terminal");
        let end = || line.try_clone().expect("a descriptor");
        command.stdin(end()).stdout(end()).stderr(end());
        drop(line);
        let child = command.spawn().expect("setsid of util-linux");
        // It holds our copies of the other end, which keep the terminal from ending.
        drop(command);
        let keyboard = File::from(master);
        let screen = Arc::new(Mutex::new(Vec::new()));
        let reader = std::thread::spawn({
            let (mut from, screen) = (keyboard.try_clone().expect("a descriptor"), Arc::clone(&screen));
            move || {
                let mut bytes = [0; 4096];
                // An error is the end of the terminal (EIO once nobody has it open).
                while let Ok(read @ 1..) = from.read(&mut bytes) {
                    lock(&screen).extend(bytes.iter().take(read));
                }
            }
        });
        Self { child, keyboard, screen, seen: 0, reader: Some(reader) }
    }

    /// The program's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything on the screen so far, with plain line ends.
    #[must_use]
    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&lock(&self.screen)).replace("\r\n", "\n")
    }

    /// Waits until this appears after what earlier calls waited for; returns what came before it.
    ///
    /// # Panics
    /// If it does not appear.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) -> String {
        let mut before = None;
        wait_until(&format!("{text:?} on the screen"), || {
            let bytes = lock(&self.screen);
            let new = bytes.get(self.seen..).unwrap_or_default();
            let at = new.windows(text.len()).position(|w| w == text.as_bytes());
            before = at.map(|at| new.iter().take(at).copied().collect::<Vec<u8>>());
            let ended = before.is_none() && self.child.try_wait().is_ok_and(|status| status.is_some());
            assert!(!ended, "it ended without {text:?}: {:?}", String::from_utf8_lossy(&bytes));
            before.is_some()
        });
        let before = before.unwrap_or_default();
        self.seen += before.len() + text.len();
        String::from_utf8_lossy(&before).replace("\r\n", "\n")
    }

    /// Types a line as soon as typing is hidden.
    ///
    /// # Panics
    /// If it is never hidden.
    #[track_caller]
    pub fn type_hidden(&mut self, line: &str) {
        self.type_hidden_keys(&format!("{line}\n"));
    }

    /// Types keys as they are, such as `\x03` for Ctrl-C, as soon as typing is hidden.
    ///
    /// # Panics
    /// If it is never hidden.
    #[track_caller]
    pub fn type_hidden_keys(&mut self, keys: &str) {
        wait_until("hidden typing", || !self.echoes());
        self.type_keys(keys);
    }

    /// Types a line that the screen shows.
    ///
    /// # Panics
    /// If typing is hidden.
    #[track_caller]
    pub fn type_line(&mut self, line: &str) {
        assert!(self.echoes(), "typing is hidden");
        self.type_keys(&format!("{line}\n"));
    }

    /// Types keys as they are.
    ///
    /// # Panics
    /// If the terminal is gone.
    pub fn type_keys(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("a terminal");
    }

    /// Whether the terminal shows what is typed.
    ///
    /// # Panics
    /// If the terminal is gone.
    #[must_use]
    pub fn echoes(&self) -> bool {
        tcgetattr(&self.keyboard).expect("a terminal").local_modes.contains(LocalModes::ECHO)
    }

    /// Waits for the program's end.
    ///
    /// # Panics
    /// If it does not end.
    pub fn wait(&mut self) -> ExitStatus {
        let mut ended = None;
        wait_until("the program's end", || {
            ended = self.child.try_wait().expect("a child");
            ended.is_some()
        });
        // The terminal ends with the program that leads its session: all of it is on the screen then.
        if let Some(reader) = self.reader.take() {
            reader.join().expect("a reader");
        }
        ended.expect("waited for")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn lock(screen: &Mutex<Vec<u8>>) -> MutexGuard<'_, Vec<u8>> {
    screen.lock().unwrap_or_else(PoisonError::into_inner)
}
