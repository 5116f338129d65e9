//! `passhold`: passkeys in this machine's TPM, from the terminal.

mod complete;

use std::process::ExitCode;

use clap::Parser;
use passhold::{App, Args, Command, Config, Exit, Failure, Local, ipc};

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
        let mut console = Local::new(&args.global)?.with_progress();
        let is_doctor = matches!(args.command, Command::Doctor(_));
        let named = args.global.socket.clone().map(|path| ipc::connect(&path).map(|stream| (path, stream)));
        let socket = match named.transpose() {
            // To be told with the rest.
            Err(_) if is_doctor => None,
            socket => socket?,
        };
        let config = if args.global.socket.is_some() { Config::default() } else { Config::read()? };
        let mut socket = socket.or_else(|| ipc::find(&args.global, &config));
        if let Some((_, socket)) = socket.take_if(|_| !is_doctor) {
            return ipc::Call::new(args.command, json, &console).relay(socket, &mut console);
        }
        let mut app = App::new(args.global, config, &mut console)?;
        app.daemon = socket.map(|(path, _)| path);
        passhold::run(&mut app, args.command)?;
        Ok(ExitCode::SUCCESS)
    };
    run().unwrap_or_else(|failure| failure.report(json))
}
