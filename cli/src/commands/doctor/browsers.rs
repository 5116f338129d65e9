//! Browsers in a sandbox, which see no hidraw device unless they are let.

use std::{
    fs,
    path::{Path, PathBuf},
};

use etcetera::BaseStrategy;

use super::finding::{Finding, Group, Level, Mend};

const FLATPAKS: [&str; 10] = [
    "org.mozilla.firefox",
    "org.chromium.Chromium",
    "com.google.Chrome",
    "com.brave.Browser",
    "com.microsoft.Edge",
    "com.opera.Opera",
    "com.vivaldi.Vivaldi",
    "io.github.ungoogled_software.ungoogled_chromium",
    "io.gitlab.librewolf-community",
    "app.zen_browser.zen",
];
const MENU: &str = "/var/lib/snapd/desktop/applications";
const SNAPS: [&str; 5] = ["firefox", "chromium", "brave", "opera", "vivaldi"];

fn line(id: &'static str, level: Level, found: String, why: &'static str) -> Finding {
    Finding::new(Group::Device, id, level, found, why)
}

pub(super) fn findings() -> Vec<Finding> {
    let own = etcetera::choose_base_strategy().ok().map(|folders| folders.data_dir().join("flatpak"));
    let places: Vec<PathBuf> = [PathBuf::from("/var/lib/flatpak")].into_iter().chain(own).collect();
    FLATPAKS
        .iter()
        .filter_map(|app| flatpak(app, &places))
        .chain(SNAPS.iter().filter_map(|app| snap(app)))
        .collect()
}

/// What an app is let see stands in its own metadata; what its user or the machine's administrator wants comes after that.
fn flatpak(app: &str, places: &[PathBuf]) -> Option<Finding> {
    let installed = places.iter().map(|place| place.join("app").join(app)).find(|dir| dir.exists())?;
    let contexts = places.iter().map(|place| place.join("overrides").join(app));
    let mut seen = false;
    for context in [installed.join("current/active/metadata")].into_iter().chain(contexts) {
        seen = devices(&context).unwrap_or(seen);
    }
    let why = "A Flatpak sees no hidraw device, and so no passkey, without this permission.";
    Some(if seen {
        line("flatpak", Level::Ok, format!("{app} sees devices"), why)
    } else {
        line("flatpak", Level::Warning, format!("{app} sees no devices"), why)
            .mended_by(Mend::Safe(format!("flatpak override --user --device=all {app}")))
    })
}

/// Whether this file has the app see all devices, if it says anything of them.
fn devices(context: &Path) -> Option<bool> {
    let text = fs::read_to_string(context).ok()?;
    let listed = text.lines().rev().find_map(|line| line.strip_prefix("devices="))?;
    let has = |device| listed.split(';').any(|listed| listed == device);
    if has("all") { Some(true) } else { has("!all").then_some(false) }
}

/// snapd's u2f-devices lets a browser see the makers and models that it lists, and Passhold's device is none of these.
fn snap(app: &str) -> Option<Finding> {
    let why = "A Snap sees only the security keys that snapd knows by their maker. Use the browser's own package instead.";
    // Its entry in the menus: every user can see whether it is there.
    let found = Path::new(MENU).join(format!("{app}_{app}.desktop")).exists();
    found.then(|| line("snap", Level::Warning, format!("{app} is a Snap"), why))
}
