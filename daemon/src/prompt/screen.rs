//! When the screen is locked or the machine goes to sleep, logind says so on D-Bus, and gdbus tells us.

use std::{
    io::{self, BufRead, BufReader},
    process::{Command, Stdio},
    thread,
};

/// As gdbus prints them: any session's, which is this user's or somebody else's before the same screen. A desktop that locks by
/// itself asks for no lock, and sets a hint.
const SIGNALS: [&str; 3] = [
    " org.freedesktop.login1.Session.Lock ()",
    " org.freedesktop.login1.Manager.PrepareForSleep (true,)",
    "'LockedHint': <true>",
];

/// Does this each time. Without gdbus it is said once that nothing is noticed.
pub(super) fn watch(lock: impl Fn() + Send + 'static) -> io::Result<()> {
    let watch = move || {
        let why = match lines() {
            Ok(lines) => {
                for line in lines.map_while(Result::ok) {
                    if SIGNALS.iter().any(|signal| line.contains(signal)) {
                        lock();
                    }
                }
                // setpriv, which runs it, is there without it.
                "it has ended, or is not there".to_owned()
            }
            Err(e) => e.to_string(),
        };
        crate::say(&format!("warning: gdbus does not run ({why}); a locked screen and sleep go unnoticed"));
    };
    thread::Builder::new().name("screen".to_owned()).spawn(watch).map(drop)
}

fn lines() -> io::Result<impl Iterator<Item = io::Result<String>>> {
    // It ends with us, however we end.
    let mut gdbus = Command::new("setpriv");
    gdbus.args(["--pdeathsig", "KILL", "gdbus", "monitor", "--system", "--dest", "org.freedesktop.login1"]);
    let mut child = gdbus.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let from = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    Ok(BufReader::new(from).lines())
}
