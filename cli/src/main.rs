//! `passhold`: passkeys in this machine's TPM, from the terminal.

mod app;
mod args;
mod commands;
mod config;
mod failure;
mod terminal;

use std::process::ExitCode;

use clap::Parser;

use crate::{
    app::App,
    args::Args,
    failure::{Exit, Failure},
};

fn main() -> ExitCode {
    let prepared = tpm_backend::prepare_process();
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(e) if e.use_stderr() && std::env::args_os().any(|arg| arg == "--json") => {
            let message = e.render().to_string();
            return Failure::new(Exit::Usage, message.trim()).next("See \"passhold --help\".").report(true);
        }
        Err(e) => e.exit(),
    };
    let json = args.global.json;
    match prepared
        .map_err(|e| Failure::unexpected("cannot turn core dumps off", e))
        .and_then(|()| App::new(args.global))
        .and_then(|mut app| commands::run(&mut app, args.command))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(json),
    }
}
