//! How `passhold` has passholdd run a command: the command goes there, and what it asks and tells comes back.

use std::{
    io::{self, ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use vault_core::{cut, pin::PinPolicy};
use zeroize::Zeroizing;

use crate::{
    app::App,
    args::{Command, Global, Output, Restore, Vault},
    commands::Standing,
    config::Config,
    console::{Console, LONGEST_INPUT},
    export::{Entry, Export, Origin},
    failure::{Exit, Failure, Result},
    frame,
    terminal::plain,
};

/// The longest message: what a relying party sends, and what goes around them.
const LONGEST: usize = LONGEST_INPUT + 1024;

/// How much of what is printed goes into one message.
const PIECE: usize = 1 << 19;

/// How much passholdd may say of one command, in bytes: more than 100,000 passkeys take.
const MOST: u64 = 1 << 27;

/// So many passkeys are told at once: each is shorter than 8 KiB, whatever sites call their users.
const AT_ONCE: usize = 128;

/// What a program says first.
#[derive(Debug, Serialize, Deserialize)]
pub enum Hello {
    /// Run this command for me.
    Run(Call),
    /// I ask this user whatever is to be asked.
    Prompt,
    /// This user's screen is locked, or the machine goes to sleep.
    Lock,
}

/// A command, as `passhold` was called with it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Call {
    command: Command,
    json: bool,
    width: Option<u16>,
    pin_is_typed: bool,
    gives_owner_auth: bool,
}

/// What the command wants of its person.
#[derive(Serialize, Deserialize)]
enum Ask {
    Note(String),
    /// Something to print that goes on in the next message.
    Part(String),
    Print(String),
    Line(String),
    Pin(String),
    OwnerAuth,
    Input,
    VaultPart,
    VaultIsTaken,
    /// Passkeys, for what follows.
    Passkeys(Vec<Entry>),
    /// How the vault of them stands.
    Overview(Standing),
    /// An export of them.
    Export(Origin),
    /// What is left to do, where these are here.
    Plan,
    /// What is gone of this vault, where these are here.
    Gone(String),
    /// It has ended: an exit code, and what to say on stderr.
    End(u8, Option<String>),
}

/// What it gets.
#[derive(Serialize, Deserialize)]
enum Answer {
    Heard,
    Text(Zeroizing<String>),
    Bytes(#[serde(with = "serde_bytes")] Vec<u8>),
}

/// Where vaults are kept for others, and in which TPM.
#[derive(Clone, Debug)]
pub struct Place {
    /// The vault's folder.
    pub dir: PathBuf,
    /// The TPM, as `--tpm` names it.
    pub tpm: String,
    /// The rules for new PINs.
    pub policy: PinPolicy,
}

/// Where passholdd listens, as a system service.
pub const SYSTEM_SOCKET: &str = "/run/passhold/socket";
/// Where it does as one user, under `$XDG_RUNTIME_DIR`.
const USER_SOCKET: &str = "passhold/socket";

/// passholdd, where the command line says it is.
pub fn connect(socket: &Path) -> Result<UnixStream> {
    UnixStream::connect(socket).map_err(|e| {
        Failure::unexpected(format!("passholdd does not answer at {}", socket.display()), e)
            .next("Start it, or leave --socket out.")
    })
}

/// passholdd, if it runs and neither the command line nor the config file says where the vault or its TPM is.
#[must_use]
pub fn find(global: &Global, config: &Config) -> Option<(PathBuf, UnixStream)> {
    let named = [global.tpm.is_some(), global.vault.is_some(), config.tpm.is_some(), config.vault.is_some()];
    if global.direct || global.socket.is_some() || named.contains(&true) {
        return None;
    }
    // One that nobody listens on any more is none.
    sockets().find_map(|path| UnixStream::connect(&path).ok().map(|stream| (path, stream)))
}

/// Where passholdd may listen.
pub(crate) fn sockets() -> impl Iterator<Item = PathBuf> {
    let own = std::env::var_os("XDG_RUNTIME_DIR").map(|dir| Path::new(&dir).join(USER_SOCKET));
    [Some(SYSTEM_SOCKET.into()), own].into_iter().flatten()
}

impl Call {
    /// To be run elsewhere for this console.
    #[must_use]
    pub fn new(command: Command, json: bool, console: &dyn Console) -> Self {
        let (pin_is_typed, gives_owner_auth) = (console.pin_is_typed(), console.gives_owner_auth());
        Self { command, json, width: console.width(), pin_is_typed, gives_owner_auth }
    }

    /// `passhold`'s side: has it run over there, and does here what it asks.
    /// Returns the exit code.
    pub fn relay(self, stream: UnixStream, console: &mut dyn Console) -> Result<u8> {
        self.relay_to(stream, console, &mut |console, text| console.print(text))
    }

    /// The same, with what it prints as the answer.
    pub(crate) fn ask(self, stream: UnixStream, console: &mut dyn Console) -> Result<String> {
        let mut heard = String::new();
        let code = self.relay_to(stream, console, &mut |_, text| {
            heard.push_str(text);
            Ok(())
        })?;
        if code == 0 {
            Ok(heard)
        } else {
            Err(Failure::new(Exit::Unexpected, "passholdd could not do it").next("It says above why."))
        }
    }

    fn relay_to(
        self,
        mut stream: UnixStream,
        console: &mut dyn Console,
        print: &mut dyn FnMut(&mut dyn Console, &str) -> Result<()>,
    ) -> Result<u8> {
        let (mut files, mut said) = (Files::of(&self), String::new());
        send(&mut stream, &Hello::Run(self)).map_err(gone)?;
        let mut told = stream.try_clone().map_err(gone)?.take(MOST);
        loop {
            let ask = receive(&mut told).map_err(|e| if told.limit() == 0 { endless() } else { gone(e) })?;
            let answer = match ask {
                Ask::Note(text) => {
                    console.note(&plain(&text));
                    Answer::Heard
                }
                Ask::Part(text) => {
                    said.push_str(&text);
                    Answer::Heard
                }
                Ask::Print(text) => {
                    said.push_str(&text);
                    print(console, &plain(&std::mem::take(&mut said)))?;
                    Answer::Heard
                }
                Ask::Line(question) => Answer::Text(console.ask(&plain(&question))?.into()),
                Ask::Pin(prompt) => Answer::Text(console.pin(&plain(&prompt))?),
                Ask::OwnerAuth => console.owner_auth()?.map_or(Answer::Heard, Answer::Text),
                Ask::End(code, text) => {
                    if let Some(text) = text {
                        console.refused(&plain(&text));
                    }
                    return Ok(code);
                }
                ask => files.answer(ask, console)?,
            };
            send(&mut stream, &answer).map_err(gone)?;
        }
    }

    /// passholdd's side: runs it here. Whoever goes away meanwhile has it end at its next question, with nothing done.
    pub fn serve(self, stream: UnixStream, place: Place) -> io::Result<()> {
        let Self { command, json, width, pin_is_typed, gives_owner_auth } = self;
        let mut console = Remote { stream, width, pin_is_typed, gives_owner_auth };
        let mut app = App::at(place, json, &mut console);
        let (code, text) = match crate::run(&mut app, command) {
            Ok(()) => (0, None),
            Err(failure) => {
                let (code, text) = failure.render(json);
                (code, Some(text))
            }
        };
        send(&mut console.stream, &Ask::End(code, text))
    }
}

/// The files that a command has to do with. passholdd is told what was asked for, and gets what that takes; whoever took it
/// over could ask for more.
#[derive(Default)]
struct Files {
    input: Option<PathBuf>,
    adopts: bool,
    folder: Option<PathBuf>,
    output: Option<Output>,
    plan: Option<PathBuf>,
    restored: Option<PathBuf>,
    shows: bool,
    /// What it has been told of so far.
    passkeys: Vec<Entry>,
    json: bool,
}

impl Files {
    fn of(call: &Call) -> Self {
        let none = Self { json: call.json, ..Self::default() };
        match &call.command {
            Command::Enroll { ceremony, .. } | Command::Sign { ceremony, .. } => {
                Self { input: Some(ceremony.options.clone()), ..none }
            }
            Command::Signal { file, .. } => Self { input: Some(file.clone()), ..none },
            Command::Vault(Vault::Adopt { dir }) => Self { adopts: true, folder: dir.clone(), ..none },
            Command::Export(output) => Self { output: Some(output.clone()), ..none },
            Command::Tui => Self { shows: true, ..none },
            Command::Plan { file } => Self { plan: Some(file.clone()), ..none },
            Command::Restore(Restore::Accept { export }) => Self { restored: export.clone(), ..none },
            _ => none,
        }
    }

    fn answer(&mut self, ask: Ask, console: &mut dyn Console) -> Result<Answer> {
        match ask {
            Ask::Input => {
                let path = self.input.as_ref().ok_or_else(unasked)?;
                return Ok(Answer::Text(console.input(path)?.into()));
            }
            Ask::VaultPart if self.adopts => {
                return Ok(Answer::Bytes(console.vault_part(self.folder.as_deref())?));
            }
            Ask::VaultIsTaken if self.adopts => console.vault_is_taken()?,
            Ask::Passkeys(more) => self.passkeys.extend(more),
            Ask::Export(origin) => {
                let output = self.output.as_ref().ok_or_else(unasked)?;
                console.export(output, Export::new(origin, std::mem::take(&mut self.passkeys)))?;
            }
            Ask::Overview(standing) if self.shows => {
                console.overview(standing, std::mem::take(&mut self.passkeys))?;
            }
            Ask::Plan => {
                let file = self.plan.as_ref().ok_or_else(unasked)?;
                console.plan(file, &self.passkeys, self.json)?;
            }
            Ask::Gone(vault) => {
                let file = self.restored.as_ref().ok_or_else(unasked)?;
                console.gone(file, &vault, &self.passkeys)?;
            }
            _ => return Err(unasked()),
        }
        Ok(Answer::Heard)
    }
}

/// What a program says first; `stream` should not wait for ever.
pub fn hello(stream: &mut impl Read) -> io::Result<Hello> {
    receive(stream)
}

/// Tells passholdd that this program asks the user what is to be asked.
pub fn offer_to_prompt(stream: &mut UnixStream) -> io::Result<()> {
    send(stream, &Hello::Prompt)
}

/// Has passholdd forget this user's PIN.
pub fn lock(stream: &mut UnixStream) -> io::Result<()> {
    send(stream, &Hello::Lock)
}

/// A console at the other end of a socket.
struct Remote {
    stream: UnixStream,
    width: Option<u16>,
    pin_is_typed: bool,
    gives_owner_auth: bool,
}

impl Remote {
    fn exchange(&mut self, ask: &Ask) -> Result<Answer> {
        send(&mut self.stream, ask).and_then(|()| receive(&mut self.stream)).map_err(gone)
    }

    fn passkeys(&mut self, passkeys: &[Entry]) -> Result<()> {
        passkeys.chunks(AT_ONCE).try_for_each(|some| self.exchange(&Ask::Passkeys(some.to_vec())).map(drop))
    }

    fn text(&mut self, ask: &Ask) -> Result<Zeroizing<String>> {
        match self.exchange(ask)? {
            Answer::Text(text) => Ok(text),
            Answer::Heard | Answer::Bytes(_) => Err(gone(ErrorKind::InvalidData.into())),
        }
    }
}

impl Console for Remote {
    fn note(&mut self, text: &str) {
        // A note that nobody hears is followed by a question that nobody answers.
        self.exchange(&Ask::Note(text.to_owned())).ok();
    }

    fn print(&mut self, text: &str) -> Result<()> {
        let mut rest = text;
        while rest.len() > PIECE {
            let part = cut(rest, PIECE);
            rest = rest.get(part.len()..).unwrap_or_default();
            self.exchange(&Ask::Part(part))?;
        }
        self.exchange(&Ask::Print(rest.to_owned())).map(drop)
    }

    /// passholdd asks no other one.
    fn refused(&mut self, _: &str) {}

    fn width(&self) -> Option<u16> {
        self.width
    }

    fn ask(&mut self, question: &str) -> Result<String> {
        self.text(&Ask::Line(question.to_owned())).map(|text| text.to_string())
    }

    fn pin(&mut self, prompt: &str) -> Result<Zeroizing<String>> {
        self.text(&Ask::Pin(prompt.to_owned()))
    }

    fn pin_is_typed(&self) -> bool {
        self.pin_is_typed
    }

    fn gives_owner_auth(&self) -> bool {
        self.gives_owner_auth
    }

    fn owner_auth(&mut self) -> Result<Option<Zeroizing<String>>> {
        if self.gives_owner_auth { self.text(&Ask::OwnerAuth).map(Some) } else { Ok(None) }
    }

    fn overview(&mut self, standing: Standing, passkeys: Vec<Entry>) -> Result<()> {
        self.passkeys(&passkeys)?;
        self.exchange(&Ask::Overview(standing)).map(drop)
    }

    fn input(&mut self, _: &Path) -> Result<String> {
        self.text(&Ask::Input).map(|text| text.to_string())
    }

    fn export(&mut self, _: &Output, export: Export) -> Result<()> {
        self.passkeys(&export.accounts)?;
        self.exchange(&Ask::Export(export.origin)).map(drop)
    }

    fn plan(&mut self, _: &Path, here: &[Entry], _: bool) -> Result<()> {
        self.passkeys(here)?;
        self.exchange(&Ask::Plan).map(drop)
    }

    fn gone(&mut self, _: &Path, vault: &str, here: &[Entry]) -> Result<()> {
        self.passkeys(here)?;
        self.exchange(&Ask::Gone(vault.to_owned())).map(drop)
    }

    fn vault_part(&mut self, _: Option<&Path>) -> Result<Vec<u8>> {
        match self.exchange(&Ask::VaultPart)? {
            Answer::Bytes(part) => Ok(part),
            Answer::Heard | Answer::Text(_) => Err(gone(ErrorKind::InvalidData.into())),
        }
    }

    fn vault_is_taken(&mut self) -> Result<()> {
        self.exchange(&Ask::VaultIsTaken).map(drop)
    }
}

fn send(stream: &mut UnixStream, message: &impl Serialize) -> io::Result<()> {
    stream.write_all(&frame::encode(message, 1024)?)
}

fn receive<T: DeserializeOwned>(stream: &mut impl Read) -> io::Result<T> {
    frame::read(stream, LONGEST)?.ok_or_else(|| ErrorKind::UnexpectedEof.into())
}

fn unasked() -> Failure {
    Failure::new(Exit::Unexpected, "passholdd wants a file that this command has nothing to do with")
        .next("Nothing was sent. Do not use this passholdd.")
}

fn endless() -> Failure {
    Failure::new(Exit::Unexpected, "passholdd has more to say than any vault holds")
        .next("Do not use this passholdd.")
}

fn gone(error: io::Error) -> Failure {
    Failure::unexpected("the other end of the socket does not answer", error)
        .next("See what passholdd says: \"journalctl -u passholdd\". Nothing more was done.")
}
