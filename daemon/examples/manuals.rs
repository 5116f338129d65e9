//! Writes the programs' manual pages, from what their command lines are made of: `manuals FOLDER`.
#![allow(unreachable_pub, reason = "a program's module, read alone")]

#[allow(dead_code, reason = "only what it says of itself is used")]
#[path = "../src/args.rs"]
mod args;

use std::{env, io, path::PathBuf};

use clap::CommandFactory;
use clap_mangen::Man;

fn main() -> io::Result<()> {
    let folder = PathBuf::from(env::args_os().nth(1).unwrap_or_else(|| ".".into()));
    clap_mangen::generate_to(passhold::Args::command(), &folder)?;
    Man::new(args::Args::command()).section("8").generate_to(&folder)?;
    Ok(())
}
