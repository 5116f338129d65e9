//! `passholdd`: shows a vault as a FIDO2 HID device, through /dev/uhid or a Unix socket.

mod args;
mod device;
mod failure;
mod prompt;
mod sandbox;
mod transport;
mod vaults;
mod worker;

use std::{env, io::Write, process::ExitCode};

use clap::Parser;

use crate::{
    args::Args,
    failure::{Failure, Result},
    sandbox::Sandbox,
};

fn main() -> ExitCode {
    let asks = env::args_os().skip(1).eq([prompt::process::COMMAND]);
    let ended = if asks { prompt::process::serve() } else { run() };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            report(&failure);
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    tpm_backend::prepare_process().map_err(Failure::Exposed)?;
    let args = Args::parse();
    let vaults = vaults::DirVault::open(&args)?;
    let prompt = prompt::Prompt::new(&args, &vaults)?;
    let transport = transport::Transport::open(&args.hid)?;
    let stop = device::stop_signals()?;
    let sandbox = Sandbox::new(&args, &vaults)?;
    Sandbox::lock_memory(&vaults)?;
    sandbox.restrict_files()?;
    let worker = worker::Worker::start(vaults, prompt, &args)?;
    sandbox.restrict_calls()?;
    let ended = device::run(transport, &worker, &stop);
    worker.end();
    ended
}

/// Says on standard error what went wrong, with what caused it.
pub(crate) fn report(error: &(dyn std::error::Error + 'static)) {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    say(&text);
}

/// A line on standard error.
pub(crate) fn say(text: &dyn std::fmt::Display) {
    // Nobody to tell that nobody can be told.
    writeln!(std::io::stderr(), "passholdd: {text}").ok();
}
