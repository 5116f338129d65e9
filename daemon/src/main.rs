//! `passholdd`: shows a vault as a FIDO2 HID device, through /dev/uhid or a Unix socket.

mod args;
mod device;
mod failure;
mod prompt;
mod sandbox;
mod service;
mod socket;
mod transport;
mod vaults;
mod worker;

use std::{env, io::Write, os::unix::net::UnixListener, path::Path, process::ExitCode, sync::Arc, thread};

use clap::Parser;
use passhold::ipc;
use rustix::{fs::Mode, io::Errno, net::SocketType, process::getuid};
use tpm_backend::{Address, Tpm};
use vault_core::{keystore::KeyStore, pin::PinPolicy};

use crate::{
    args::Args,
    device::End,
    failure::{Failure, Result},
    sandbox::{Needs, Sandbox},
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
    let policy = policy.with_history(args.pin_history).ok_or(Failure::PinHistory)?;
    let policy = policy.with_max_age_days(args.pin_max_age_days);
    if args.system {
        let stop = device::stop_signals()?;
        let path = args.socket.unwrap_or_else(|| ipc::SYSTEM_SOCKET.into());
        let listener = listen(&path, Mode::from_raw_mode(0o666))?;
        let address: Address = args.tpm.parse().map_err(Failure::Address)?;
        let simulated = Tpm::new(address.clone()).status(None).map_err(Failure::Tpm)?.simulated;
        let sandbox = Sandbox::new(&Needs {
            folder: &args.state,
            sockets: [None, Some(&path)],
            address: &address,
            simulated,
            service: true,
            devices: Some(&args.hid),
        })?;
        sandbox.restrict_files()?;
        let service = Service::new(Vaults::Each(args.state, args.hid), args.tpm, policy, stop);
        let all = Arc::clone(&service);
        device::at_lock_signal(move || all.lock_all())?;
        sandbox.restrict_calls()?;
        return service.run(&listener);
    }
    let dir = args.vault.clone().map_or_else(|| passhold::default_vault().map_err(|_| Failure::Home), Ok)?;
    let vaults = vaults::DirVault::open(dir.clone(), &args.tpm)?;
    let address = vaults.tpm_address().to_string();
    let prompt = prompt::Prompt::new(&args, &vaults)?;
    let transport = transport::Transport::open(&args.hid, getuid())?;
    let stop = device::stop_signals()?;
    let listener = args.socket.as_deref().map(|path| listen(path, Mode::RUSR | Mode::WUSR)).transpose()?;
    let sandbox = Sandbox::new(&Needs {
        folder: &dir,
        sockets: [args.hid.path(), args.socket.as_deref()],
        address: vaults.tpm_address(),
        simulated: vaults.is_simulated(),
        service: listener.is_some(),
        devices: None,
    })?;
    sandbox.restrict_files()?;
    let worker = worker::Worker::start(vaults, prompt, policy, Arc::default())?;
    let locker = worker.locker();
    device::at_lock_signal(move || locker.lock())?;
    if let Some(listener) = listener {
        let stop = stop.try_clone().map_err(Failure::Device)?;
        let service = Service::new(Vaults::Own(dir), address, policy, stop);
        let serve = move || service.run(&listener).unwrap_or_else(|failure| report(&failure));
        thread::Builder::new().name("socket".to_owned()).spawn(serve).map_err(Failure::Thread)?;
    }
    sandbox.restrict_calls()?;
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
