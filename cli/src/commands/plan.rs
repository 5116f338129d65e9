use std::path::Path;

use crate::{
    app::App,
    export::{Entry, entries},
    failure::Result,
};

pub(crate) fn run(app: &mut App<'_>, file: &Path) -> Result<()> {
    let here = match here(app) {
        // On a new machine, or with a TPM that was cleared, there is all the more to do.
        Err(failure) if failure.leaves_no_keys() => {
            app.note(failure.advice());
            Vec::new()
        }
        here => here?,
    };
    let json = app.json;
    app.console.plan(file, &here, json)
}

fn here(app: &mut App<'_>) -> Result<Vec<Entry>> {
    let mut keys = app.keys()?;
    Ok(entries(&app.open(&mut keys)?.accounts()?))
}
