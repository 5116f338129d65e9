use serde_json::json;
use vault_core::{RuleAction, Rules};

use crate::{
    app::{App, rng},
    args::RuleChange,
    failure::{Exit, Failure, Result},
};

pub(crate) fn list(app: &mut App<'_>) -> Result<()> {
    let mut keys = app.keys()?;
    let settings = app.open(&mut keys)?.settings()?;
    let rules = settings.rules.all();
    app.print(&json!(rules), || {
        let lines: Vec<_> = rules.iter().map(ToString::to_string).collect();
        if lines.is_empty() { "No rules.".to_owned() } else { lines.join("\n") }
    })
}

pub(crate) fn change(app: &mut App<'_>, change: &RuleChange) -> Result<()> {
    let mut keys = app.keys()?;
    let (rule, done) = app.with_pin(
        &mut keys,
        |app, vault| {
            let told = apply(change, &mut vault.settings()?.rules)?;
            app.note(told.what);
            Ok(())
        },
        |_, unlocked, _, ()| {
            // Others may have changed them while somebody typed.
            let mut settings = unlocked.settings()?;
            let applied = apply(change, &mut settings.rules)?;
            unlocked.configure(&settings, &mut rng())?;
            Ok((applied.rule, applied.done))
        },
    )?;
    app.print(&json!(rule), || format!("The rule \"{rule}\" {done}."))
}

struct Applied {
    rule: vault_core::Rule,
    what: String,
    done: &'static str,
}

fn apply(change: &RuleChange, rules: &mut Rules) -> Result<Applied> {
    match change {
        RuleChange::Add { action, glob } => {
            let rule = rules.add(*action, glob)?;
            let what = match action {
                RuleAction::Never => format!("make no passkey where the site matches {}", rule.glob),
                RuleAction::Ask => {
                    format!("ask before a passkey is made where the site matches {}", rule.glob)
                }
            };
            Ok(Applied { rule, what, done: "holds from now on; passkeys that are there stay" })
        }
        RuleChange::Remove { glob } => {
            let none = || Failure::new(Exit::Usage, format!("there is no rule for {glob:?}"));
            let rule = rules.remove(glob).ok_or_else(|| none().next("\"passhold rules\" lists them."))?;
            let what = format!("take the rule \"{rule}\" away");
            Ok(Applied { rule, what, done: "is gone" })
        }
    }
}
