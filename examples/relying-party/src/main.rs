//! Serves the relying party on 127.0.0.1.

#![allow(clippy::doc_markdown, reason = "WebAuthn is a name, not code")]

use std::error::Error;
use std::net::Ipv4Addr;
use std::process::ExitCode;

use clap::Parser;
use relying_party::{RelyingParty, router};
use tokio::net::TcpListener;

/// A WebAuthn relying party on loopback, for trying Passhold.
#[derive(Parser)]
struct Args {
    /// The port to listen on; 0 takes any free one.
    #[arg(long, default_value_t = 8080)]
    port: u16,
}

#[tokio::main]
async fn main() -> ExitCode {
    match serve(&Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "the address is this program's output")]
async fn serve(args: &Args) -> Result<(), Box<dyn Error>> {
    let port = args.port;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .map_err(|error| format!("could not listen on 127.0.0.1:{port}: {error}; try --port 0"))?;
    let origin = format!("http://localhost:{}", listener.local_addr()?.port());
    let rp = RelyingParty::new(&origin)?;
    println!("listening on {origin}");
    axum::serve(listener, router(rp)).await?;
    Ok(())
}
