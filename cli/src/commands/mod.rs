//! One command a file.

mod delete;
mod enroll;
mod list;
mod pin_change;
mod rename;
mod setup;
mod show;
mod sign;
mod status;
mod wipe;

use std::{fs::File, io::Read, path::Path};

use crate::{
    app::App,
    args::{Command, Pin},
    failure::{Exit, Failure, Result},
    terminal,
};

/// No relying party's options are longer.
const LONGEST_OPTIONS: u64 = 1 << 20;

pub(crate) fn run(app: &mut App, command: Command) -> Result<()> {
    match command {
        Command::Setup => setup::run(app),
        Command::Enroll(ceremony) => enroll::run(app, &ceremony),
        Command::Sign { ceremony, account } => sign::run(app, &ceremony, account),
        Command::List => list::run(app),
        Command::Show { id } => show::run(app, id),
        Command::Rename { id, name } => rename::run(app, id, name),
        Command::Delete { id } => delete::run(app, id),
        Command::Pin(Pin::Change) => pin_change::run(app),
        Command::Status => status::run(app),
        Command::Wipe { yes } => wipe::run(app, yes),
    }
}

fn read_options(path: &Path) -> Result<String> {
    let unreadable = |e| {
        Failure::unexpected(format!("cannot read {}", path.display()), e)
            .next("Give the relying party's options with --options FILE, or pipe them in.")
    };
    let mut json = Vec::new();
    if path == Path::new("-") {
        if terminal::stdin_is_a_terminal() {
            return Err(Failure::new(Exit::Usage, "there are no options on standard input")
                .next("Give the relying party's options with --options FILE, or pipe them in."));
        }
        std::io::stdin().take(LONGEST_OPTIONS + 1).read_to_end(&mut json).map_err(unreadable)?;
    } else {
        File::open(path)
            .and_then(|f| f.take(LONGEST_OPTIONS + 1).read_to_end(&mut json))
            .map_err(unreadable)?;
    }
    let refused = |why: &str| {
        Failure::new(Exit::Request, format!("the options are {why}"))
            .next("Give the options as the relying party sent them.")
    };
    if u64::try_from(json.len()).is_ok_and(|len| len > LONGEST_OPTIONS) {
        return Err(refused("longer than 1 MiB"));
    }
    String::from_utf8(json).map_err(|_| refused("not UTF-8"))
}
