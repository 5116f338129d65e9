//! `passhold`: passkeys in this machine's TPM, from the terminal.

mod complete;
mod tui;

use std::process::ExitCode;

use clap::Parser;
use passhold::{Args, Command, Exit, Failure, Local, Runner};

fn main() -> ExitCode {
    let prepared = tpm_backend::prepare_process();
    complete::if_asked();
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(e) if e.use_stderr() && std::env::args_os().any(|arg| arg == "--json") => {
            let message = e.render().to_string();
            return Failure::new(Exit::Usage, message.trim()).next("See \"passhold --help\".").report(true);
        }
        Err(e) => e.exit(),
    };
    let json = args.global.json;
    let run = || {
        prepared.map_err(|e| Failure::unexpected("cannot turn core dumps off", e))?;
        args.command.check()?;
        if matches!(args.command, Command::Tui) {
            return tui::run(args.global);
        }
        let mut console = Local::new(&args.global)?.with_progress();
        Runner::new(args.global)?.run(args.command, &mut console).map(ExitCode::from)
    };
    run().unwrap_or_else(|failure| failure.report(json))
}
