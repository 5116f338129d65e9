//! What a shell offers after TAB, accounts' numbers included. No PIN is asked for, nothing is said, and a vault that is busy
//! offers nothing.

use std::{
    env,
    process::{Command, Stdio},
};

use clap::CommandFactory;
use clap_complete::{ArgValueCandidates, CompleteEnv, CompletionCandidate};
use passhold::Args;
use serde_json::Value;
use vault_core::printable;

/// In seconds.
const PATIENCE: &str = "2";

/// Answers the shell and ends, if `COMPLETE` says that one asks.
pub(crate) fn if_asked() {
    CompleteEnv::with_factory(command).completer("passhold").complete();
}

fn command() -> clap::Command {
    Args::command().mut_subcommands(|command| {
        let list: &[_] = if command.get_name() == "undelete" { &["list", "--bin"] } else { &["list"] };
        command.mut_args(|arg| match arg.get_id().as_str() {
            "id" | "account" => arg.add(ArgValueCandidates::new(|| accounts(list).unwrap_or_default())),
            _ => arg,
        })
    })
}

/// Those of the vault that the words before name, as `list` tells them.
fn accounts(how: &[&str]) -> Option<Vec<CompletionCandidate>> {
    let words = env::args_os().skip_while(|word| word != "--").skip(1);
    let typed = Args::command().ignore_errors(true).try_get_matches_from(words).ok()?;
    let mut list = Command::new("timeout");
    list.arg(PATIENCE).arg(env::current_exe().ok()?).arg("--json").args(how);
    for option in ["vault", "tpm", "socket"] {
        if let Some(value) = typed.get_raw(option) {
            list.arg(format!("--{option}")).args(value);
        }
    }
    if typed.get_flag("direct") {
        list.arg("--direct");
    }
    let listed = list.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let accounts: Vec<Value> = serde_json::from_slice(&listed.stdout).ok()?;
    accounts.iter().map(candidate).collect()
}

fn candidate(account: &Value) -> Option<CompletionCandidate> {
    let text = |field: &str| account.get(field).and_then(Value::as_str).map(printable);
    let name = text("name").or_else(|| text("userName"))?;
    let help = format!("{name} at {}", text("rpId")?);
    Some(CompletionCandidate::new(account.get("id")?.to_string()).help(Some(help.into())))
}
