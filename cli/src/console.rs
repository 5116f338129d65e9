use std::{
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use vault_core::container::{Container, Lock, VAULT_FILE};

use zeroize::Zeroizing;

use crate::{
    args::{Global, Output},
    commands::Standing,
    config::default_vault,
    export::{Entry, Export},
    failure::{Exit, Failure, Result},
    plan,
    progress::Progress,
    terminal::{self, PinSource},
};

/// Nothing that a relying party sends is longer.
pub(crate) const LONGEST_INPUT: usize = 1 << 20;

/// How much of a vault's file is sent at once.
const PART: u64 = 1 << 19;

/// Where a command's person sits. One that has no files there refuses what a command wants of them.
pub trait Console {
    /// Tells what is not the result.
    fn note(&mut self, text: &str);

    /// Tells the result; its styles only where they can be seen.
    fn print(&mut self, text: &str) -> Result<()>;

    /// Tells why passholdd could not do it, as it says it.
    fn refused(&mut self, text: &str);

    /// How many columns there are for the result, if it goes to a terminal.
    fn width(&self) -> Option<u16>;

    /// Asks, and returns the line that was typed.
    fn ask(&mut self, question: &str) -> Result<String>;

    /// Asks for a PIN, which nobody else gets to see.
    fn pin(&mut self, prompt: &str) -> Result<Zeroizing<String>>;

    /// Whether it is typed: then it takes its time, and can be asked for again.
    fn pin_is_typed(&self) -> bool;

    /// Whether the TPM's owner authorization is given.
    fn gives_owner_auth(&self) -> bool;

    /// The TPM's owner authorization, if it is given.
    fn owner_auth(&mut self) -> Result<Option<Zeroizing<String>>>;

    /// Shows all passkeys and how the vault stands, where that is a screen of its own.
    fn overview(&mut self, _standing: Standing, _passkeys: Vec<Entry>) -> Result<()> {
        Err(Failure::new(Exit::Usage, "tui takes a terminal of its own").next("Run \"passhold tui\" there."))
    }

    /// What a relying party sent; `-` is standard input.
    fn input(&mut self, _path: &Path) -> Result<String> {
        Err(no_files())
    }

    /// Writes an export where the person wants it.
    fn export(&mut self, _output: &Output, _export: Export) -> Result<()> {
        Err(no_files())
    }

    /// Reads an export and tells what is to be done, where these passkeys are here.
    fn plan(&mut self, _file: &Path, _here: &[Entry], _json: bool) -> Result<()> {
        Err(no_files())
    }

    /// Reads an export of this vault and tells which of its passkeys are not among these, and which of these not among its.
    fn gone(&mut self, _file: &Path, _vault: &str, _here: &[Entry]) -> Result<()> {
        Err(no_files())
    }

    /// The next part of the file of the person's own vault, in this folder or where it is by default; empty at its end.
    fn vault_part(&mut self, _dir: Option<&Path>) -> Result<Vec<u8>> {
        Err(no_files())
    }

    /// That vault is kept elsewhere from now on.
    fn vault_is_taken(&mut self) -> Result<()> {
        Err(no_files())
    }
}

fn no_files() -> Failure {
    Failure::new(Exit::Unexpected, "a file is wanted where there are none")
        .next("Run this command by itself, in a shell.")
}

/// This process's own terminal and descriptors.
pub struct Local {
    json: bool,
    pins: PinSource,
    owner_auth_fd: Option<u32>,
    /// What came from there.
    owner_auth: Option<Zeroizing<String>>,
    /// What was told since the last question: the next one is about that.
    noted: Vec<String>,
    leaving: Option<Leaving>,
    progress: Progress,
}

/// A vault that is being given away. Nobody else uses it meanwhile.
struct Leaving {
    dir: PathBuf,
    lock: Lock,
    file: File,
}

impl Local {
    /// As the command line says.
    pub fn new(global: &Global) -> Result<Self> {
        let pins = PinSource::new(global.pin_fd)?;
        let Global { json, owner_auth_fd, .. } = *global;
        let (noted, progress) = (Vec::new(), Progress::default());
        Ok(Self { json, pins, owner_auth_fd, owner_auth: None, noted, leaving: None, progress })
    }

    /// From now on a person at a terminal sees that something still happens.
    #[must_use]
    pub fn with_progress(self) -> Self {
        if self.json { self } else { Self { progress: Progress::start(), ..self } }
    }
}

impl Console for Local {
    fn note(&mut self, text: &str) {
        let _paused = self.progress.pause();
        // Nobody to tell that nobody can be told.
        writeln!(io::stderr(), "passhold: {text}").ok();
        self.noted.push(text.to_owned());
    }

    fn print(&mut self, text: &str) -> Result<()> {
        let _paused = self.progress.pause();
        // JSON is printed as it is: what looks like a style in it is somebody's name.
        let printed =
            if self.json { writeln!(io::stdout(), "{text}") } else { writeln!(anstream::stdout(), "{text}") };
        printed.map_err(|e| Failure::unexpected("cannot write to standard output", e))
    }

    fn refused(&mut self, text: &str) {
        let _paused = self.progress.pause();
        writeln!(io::stderr(), "{text}").ok();
    }

    fn width(&self) -> Option<u16> {
        terminal::width()
    }

    fn ask(&mut self, question: &str) -> Result<String> {
        let _paused = self.progress.pause();
        self.noted.clear();
        terminal::ask(question)
    }

    fn pin(&mut self, prompt: &str) -> Result<Zeroizing<String>> {
        let _paused = self.progress.pause();
        let about = std::mem::take(&mut self.noted).join("\n");
        self.pins.read(prompt, &about)
    }

    fn pin_is_typed(&self) -> bool {
        self.pins.is_terminal()
    }

    fn gives_owner_auth(&self) -> bool {
        self.owner_auth_fd.is_some()
    }

    fn owner_auth(&mut self) -> Result<Option<Zeroizing<String>>> {
        if self.owner_auth.is_none() {
            let _paused = self.progress.pause();
            let read = |fd| terminal::read_secret(fd, "the owner authorization");
            self.owner_auth = self.owner_auth_fd.map(read).transpose()?;
        }
        Ok(self.owner_auth.clone())
    }

    fn input(&mut self, path: &Path) -> Result<String> {
        let _paused = self.progress.pause();
        read_input(path)
    }

    fn export(&mut self, output: &Output, export: Export) -> Result<()> {
        let _paused = self.progress.pause();
        export.write(output)
    }

    fn plan(&mut self, file: &Path, here: &[Entry], json: bool) -> Result<()> {
        self.print(&plan::plan(file, here, json)?)
    }

    fn gone(&mut self, file: &Path, vault: &str, here: &[Entry]) -> Result<()> {
        plan::gone(file, vault, here)?.iter().for_each(|line| self.note(line));
        Ok(())
    }

    fn vault_part(&mut self, dir: Option<&Path>) -> Result<Vec<u8>> {
        if self.leaving.is_none() {
            let dir = dir.map_or_else(default_vault, |dir| Ok(dir.to_owned()))?;
            // A vault at rest is one file: closing it sees to that.
            let lock = Container::open(&dir)?.lock();
            let path = dir.join(VAULT_FILE);
            let file = File::open(&path)
                .map_err(|e| Failure::unexpected(format!("cannot read {}", path.display()), e))?;
            self.leaving = Some(Leaving { dir, lock, file });
        }
        let mut part = Vec::new();
        if let Some(leaving) = &mut self.leaving {
            let read = (&mut leaving.file).take(PART).read_to_end(&mut part);
            read.map_err(|e| Failure::unexpected("cannot read the vault's file", e))?;
        }
        Ok(part)
    }

    fn vault_is_taken(&mut self) -> Result<()> {
        if let Some(Leaving { dir, lock, .. }) = self.leaving.take() {
            Container::open_locked(&dir, lock)?.remove()?;
        }
        Ok(())
    }
}

fn read_input(path: &Path) -> Result<String> {
    let next = "Name a file with what the relying party sent, or pipe it in.";
    let unreadable = |e| Failure::unexpected(format!("cannot read {}", path.display()), e).next(next);
    let mut json = Vec::new();
    let one_too_many = u64::try_from(LONGEST_INPUT + 1).unwrap_or(u64::MAX);
    if path == Path::new("-") {
        if terminal::stdin_is_a_terminal() {
            return Err(Failure::new(Exit::Usage, "there is nothing on standard input").next(next));
        }
        std::io::stdin().take(one_too_many).read_to_end(&mut json).map_err(unreadable)?;
    } else {
        File::open(path).and_then(|f| f.take(one_too_many).read_to_end(&mut json)).map_err(unreadable)?;
    }
    let refused = |why: &str| {
        Failure::new(Exit::Request, format!("what the relying party sent is {why}"))
            .next("Give it as the relying party sent it.")
    };
    if json.len() > LONGEST_INPUT {
        return Err(refused("longer than 1 MiB"));
    }
    String::from_utf8(json).map_err(|_| refused("not UTF-8"))
}
