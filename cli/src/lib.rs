//! `passhold`'s commands, wherever their person sits: at this process's own terminal, or at the other end of passholdd's
//! socket.

mod app;
mod args;
mod commands;
mod config;
mod console;
mod export;
mod failure;
pub mod frame;
pub mod ipc;
pub mod node;
pub mod pinentry;
mod plan;
mod progress;
mod runner;
mod terminal;

pub use app::{App, now, patiently};
pub use args::{Args, Command, DoctorArgs, Global, Pin, Recovery};
pub use commands::{Level, Standing, has, run};
pub use config::{Config, default_vault};
pub use console::{Console, Local};
pub use export::Entry;
pub use failure::{Exit, Failure, Result};
pub use runner::Runner;
pub use terminal::{ago, date};
