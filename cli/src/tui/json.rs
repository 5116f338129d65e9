//! What `doctor` tells as JSON, as much of it as is shown.

use passhold::Level;
use serde::Deserialize;

/// A line of `doctor --json`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Finding {
    pub(super) id: String,
    pub(super) level: Level,
    pub(super) found: String,
    pub(super) why: String,
    pub(super) mend: Option<String>,
}

/// What was printed; a passholdd of another version may tell it otherwise.
pub(super) fn findings(printed: &str) -> Result<Vec<Finding>, String> {
    #[derive(Deserialize)]
    struct Page {
        findings: Vec<Finding>,
    }
    let page: Result<Page, _> = serde_json::from_str(printed);
    page.map(|page| page.findings).map_err(|e| format!("what was told makes no sense: {e}"))
}
