//! `passholdd`: shows a vault as a FIDO2 HID device, through /dev/uhid or a Unix socket.

mod args;
mod device;
mod failure;
mod prompt;
mod service;
mod socket;
mod transport;
mod vaults;
mod worker;

use std::{env, io::Write, os::unix::net::UnixListener, path::Path, process::ExitCode, thread};

use clap::Parser;
use passhold::ipc;
use rustix::{fs::Mode, io::Errno, net::SocketType, process::getuid};
use vault_core::pin::PinPolicy;

use crate::{
    args::Args,
    device::End,
    failure::{Failure, Result},
    service::{Service, Vaults},
};

fn main() -> ExitCode {
    let mut args = env::args_os().skip(1);
    let ended = match args.next() {
        Some(command) if command == prompt::process::COMMAND => {
            prompt::process::serve(args.next().as_deref())
        }
        _ => run(),
    };
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
    let policy = PinPolicy::with_min_length(args.min_pin_length).ok_or(Failure::MinPinLength)?;
    let stop = device::stop_signals()?;
    if args.system {
        let path = args.socket.unwrap_or_else(|| ipc::SYSTEM_SOCKET.into());
        let listener = listen(&path, Mode::from_raw_mode(0o666))?;
        return Service::new(Vaults::Each(args.state, args.hid), args.tpm, policy, stop).run(&listener);
    }
    let dir = args.vault.clone().unwrap_or_default();
    let vaults = vaults::DirVault::open(dir.clone(), &args.tpm)?;
    let address = vaults.address();
    let prompt = prompt::Prompt::new(&args, &vaults)?;
    let transport = transport::Transport::open(&args.hid, getuid())?;
    let worker = worker::Worker::start(vaults, prompt, policy)?;
    if let Some(path) = &args.socket {
        let listener = listen(path, Mode::RUSR | Mode::WUSR)?;
        let stop = stop.try_clone().map_err(Failure::Device)?;
        let service = Service::new(Vaults::Own(dir), address, policy, stop);
        let serve = move || service.run(&listener).unwrap_or_else(|failure| report(&failure));
        thread::Builder::new().name("socket".to_owned()).spawn(serve).map_err(Failure::Thread)?;
    }
    let ended = device::run(transport, &worker, &[End::Readable(&stop)]);
    worker.end();
    ended
}

fn listen(path: &Path, mode: Mode) -> Result<UnixListener> {
    let listener = socket::listen(path, SocketType::STREAM, mode);
    let failed = |source: Errno| Failure::Socket { path: path.to_owned(), source: source.into() };
    listener.map(UnixListener::from).map_err(failed)
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
