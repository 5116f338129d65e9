//! Device nodes, and who has them open.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rustix::process::geteuid;

/// This user's devices: what passholdd shows browsers for him.
#[must_use]
pub fn of_this_user() -> Vec<PathBuf> {
    let own = format!("HID_UNIQ={}", geteuid().as_raw());
    let is_ours = |node: &fs::DirEntry| {
        let about = fs::read_to_string(node.path().join("device/uevent")).unwrap_or_default();
        about.lines().any(|line| line == "HID_PHYS=passholdd") && about.lines().any(|line| line == own)
    };
    let nodes = fs::read_dir("/sys/class/hidraw").into_iter().flatten().flatten().filter(is_ours);
    nodes.map(|node| Path::new("/dev").join(node.file_name())).collect()
}

/// Who has it open, as far as this user may see: process numbers, and the names that the processes give themselves.
pub fn holders(path: &Path) -> impl Iterator<Item = (u32, String)> {
    let opens = move |pid: &u32| {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        open.filter_map(|fd| fs::read_link(fd.path()).ok()).any(|to| to == path)
    };
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|process| process.file_name().to_str()?.parse().ok());
    pids.filter(|pid| *pid != std::process::id()).filter(opens).map(|pid| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        (pid, name.trim().to_owned())
    })
}
