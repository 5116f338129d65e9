//! One command a file.

mod adopt;
mod delete;
mod doctor;
mod empty_bin;
mod enroll;
mod export;
mod list;
mod log;
mod pin_change;
mod pin_reset;
mod plan;
mod recovery_renew;
mod rename;
mod restore_accept;
mod rules;
mod setup;
mod show;
mod sign;
mod signal;
mod status;
mod tui;
mod undelete;
mod wipe;

pub use doctor::Level;
pub(crate) use doctor::quoted;
pub use list::has;
pub use tui::Standing;

use crate::{
    app::App,
    args::{Command, Log, Pin, Recovery, Restore, Vault},
    failure::Result,
};

/// Runs a command.
pub fn run(app: &mut App<'_>, command: Command) -> Result<()> {
    match command {
        Command::Setup { no_recovery_code } => setup::run(app, !no_recovery_code),
        Command::Enroll { ceremony, replace, another } => {
            enroll::run(app, &ceremony, enroll::Beside::new(replace, another))
        }
        Command::Sign { ceremony, account } => sign::run(app, &ceremony, account),
        Command::List { bin: true, .. } => list::bin(app),
        Command::List { text, unused, stale, .. } => list::run(app, text.as_deref(), unused, stale),
        Command::Show { id } => show::run(app, id),
        Command::Rename { id, name } => rename::run(app, id, name),
        Command::Delete { id } => delete::run(app, id),
        Command::Undelete { id } => undelete::run(app, id),
        Command::EmptyBin => empty_bin::run(app),
        Command::Pin(Pin::Change) => pin_change::run(app),
        Command::Pin(Pin::Reset) => pin_reset::run(app),
        Command::Recovery(Recovery::Renew) => recovery_renew::run(app),
        Command::Signal { file, yes } => signal::run(app, &file, yes),
        Command::Rules { change: None } => rules::list(app),
        Command::Rules { change: Some(change) } => rules::change(app, &change),
        Command::Export(output) => export::run(app, &output),
        Command::Plan { file } => plan::run(app, &file),
        Command::Vault(Vault::Adopt { dir }) => adopt::run(app, dir.as_deref()),
        Command::Restore(Restore::Accept { export }) => restore_accept::run(app, export.as_deref()),
        Command::Log { command: None, last } => log::run(app, last),
        Command::Log { command: Some(Log::Verify), .. } => log::verify(app),
        Command::Status => status::run(app),
        Command::Doctor(args) => doctor::run(app, &args),
        Command::Tui => tui::run(app),
        Command::Wipe { yes } => wipe::run(app, yes),
    }
}
