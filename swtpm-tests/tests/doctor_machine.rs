//! `passhold doctor` on machines that are really so: device nodes, rules, passholdd, the disk, browsers. Programs that only a real
//! system has (sudo, modprobe, systemctl, flatpak) are stood in for by what they do here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::pedantic)]

mod clinic;

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt, chown},
        net::UnixListener,
    },
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use clinic::{AS_USER, Answer, Line, Patient, WRITTEN, YES, lines, path, typed};
use swtpm_tests::{
    Call, Machine, PIN, Passhold, Program, TestTpm,
    proxy::{Fault, FaultKind, Proxy, Rewriter},
};

const RULE: &str = "etc/udev/rules.d/72-passhold.rules";

/// A vault on a machine.
struct Ward {
    patient: Patient,
    machine: Machine,
    /// Who looks.
    user: &'static str,
}

impl Ward {
    fn new(machine: Machine) -> Self {
        machine.program("sudo", "exec \"$@\"");
        Self { patient: Patient::with_vault(), machine, user: "" }
    }

    fn for_user(mut self) -> Self {
        self.patient = self.patient.for_user();
        self.user = AS_USER;
        self
    }

    fn under(&self, call: Call, user: &str) -> Call {
        let path = format!("{}:{}", self.machine.path("bin").display(), path());
        call.under(&format!("{} {user}", self.machine.runner())).env("PATH", path)
    }

    fn look(&self, id: &str) -> Option<Line> {
        lines(self.under(self.patient.doctor(), self.user)).remove(id)
    }

    #[track_caller]
    fn line(&self, id: &str) -> Line {
        self.look(id).unwrap_or_else(|| panic!("no line {id}"))
    }

    #[track_caller]
    fn is_mended(&self, id: &str, level: &str, found: &str, answers: &[Answer<'_>]) {
        let line = self.line(id);
        assert_eq!((line.level.as_str(), line.found.as_str()), (level, found), "{id}");
        let mend = line.mend.unwrap_or_else(|| panic!("{id}: nothing mends it"));
        // Whoever is asked for sudo's password is root in what follows; whoever is not stays who he is.
        let user = if mend.contains("sudo ") { "" } else { self.user };
        let mended = self.patient.passhold.bare(["--version"]).env("MEND", &mend);
        let script = format!("exec {} {user} sh -c \"$MEND\"", self.machine.runner());
        typed(self.under(mended, "").then(&script).on_terminal(), &mend, answers);
        let line = self.line(id);
        assert_eq!(line.level, "ok", "{id} after {mend}: {line:?}");
    }
}

#[test]
fn uhid_is_loaded_now_and_at_the_next_start() {
    let ward = Ward::new(Machine::without_devices());
    ward.machine.program("modprobe", "[ \"$1\" = uhid ] && : > /dev/uhid");
    fs::create_dir_all(ward.machine.path("etc/modules-load.d")).unwrap();
    ward.is_mended("uhid", "warning", "there is no /dev/uhid", &[]);
    let written = ward.machine.path("etc/modules-load.d/passhold.conf");
    assert_eq!(fs::read_to_string(&written).unwrap(), include_str!("../../dist/modules-load/passhold.conf"));
    // Where a package has it loaded, it only has to be loaded now.
    fs::remove_file(&written).unwrap();
    fs::remove_file(ward.machine.path("dev/uhid")).unwrap();
    ward.machine.write("run/modules-load.d/passhold.conf", "uhid\n");
    ward.is_mended("uhid", "warning", "there is no /dev/uhid", &[]);
    assert!(!written.exists());
}

#[test]
fn the_services_group_is_made_as_the_package_makes_it() {
    for sysusers in [Some(include_str!("../../dist/sysusers/passhold.conf")), None] {
        let ward = Ward::new(Machine::new());
        if let Some(sysusers) = sysusers {
            ward.machine.write("etc/sysusers.d/passhold.conf", sysusers);
        }
        ward.is_mended("group", "warning", "there is no group passhold", &[]);
        let users = fs::read_to_string(ward.machine.path("etc/passwd")).unwrap();
        assert!(
            users.lines().any(|line| line.starts_with("passhold:") && line.contains(":/var/lib/passhold:"))
        );
    }
}

#[test]
fn what_a_sudo_too_many_made_roots_is_the_users_again() {
    let ward = Ward::new(Machine::new()).for_user();
    for path in [ward.patient.file(), ward.patient.passhold.vault()] {
        chown(&path, Some(0), Some(0)).unwrap();
        ward.is_mended("vault-permissions", "problem", "it belongs to user 0", &[]);
    }
}

#[test]
fn the_udev_rule_is_written_where_it_is_missing_or_another() {
    let ward = Ward::new(Machine::without_devices().with_group());
    ward.machine.write("dev/uhid", "");
    ward.is_mended("udev-rule", "warning", "passholdd's udev rule is not installed", &YES);
    let rule = fs::read_to_string(ward.machine.path(RULE)).unwrap();
    assert_eq!(rule, include_str!("../../dist/udev/72-passhold.rules"));
    // A running udevd is told, and what it has made by the old rule is made by the new one.
    let (told, told_path) =
        (|| fs::read_to_string(ward.machine.path("told")).unwrap(), ward.machine.path("told"));
    ward.machine.program("udevadm", &format!("echo \"$@\" >> {}", told_path.display()));
    ward.machine.write("run/udev/control", "");
    ward.machine.write(RULE, "# an older one");
    let older = "/etc/udev/rules.d/72-passhold.rules is not the one of this Passhold";
    ward.is_mended("udev-rule", "warning", older, &YES);
    assert_eq!(told(), "control --reload\ntrigger --sysname-match=tpmrm0 --sysname-match=uhid\n");
}

#[test]
fn fix_tells_whoever_is_not_root_what_is_roots_to_mend() {
    let ward = Ward::new(Machine::without_devices()).for_user();
    let fix = ward.under(ward.patient.passhold.call(["doctor", "--fix"]), ward.user).run().expect_code(19);
    for mend in [
        "uhid: to be mended with sudo sh -c ",
        "udev-rule: to be mended with sudo passhold --direct doctor --fix",
    ] {
        assert!(fix.stderr.contains(mend), "{}", fix.stderr);
    }
    assert!(!ward.machine.path(RULE).exists());
}

#[test]
fn a_users_own_device_can_be_opened_by_his_browser() {
    let ward = Ward::new(Machine::without_devices()).for_user();
    let device = |node: &str, phys: &str, user: u32| {
        let about = format!("HID_NAME=Passhold\nHID_PHYS={phys}\nHID_UNIQ={user}\n");
        ward.machine.write(&format!("sys/class/hidraw/{node}/device/uevent"), &about);
        ward.machine.write(&format!("dev/{node}"), "");
        fs::set_permissions(ward.machine.path("dev").join(node), fs::Permissions::from_mode(0o600)).unwrap();
    };
    device("hidraw0", "passholdd", 31_002);
    device("hidraw1", "usb-1", 31_001);
    assert!(ward.look("hidraw").is_none(), "none of his");
    device("hidraw2", "passholdd", 31_001);
    let found = "/dev/hidraw2 cannot be opened: Permission denied (os error 13)";
    ward.is_mended("hidraw", "problem", found, &[]);
}

#[test]
fn a_disk_without_room_is_told() {
    let patient = Patient::empty();
    for (size, level) in [("512k", "problem"), ("8m", "warning"), ("128m", "ok")] {
        let mount = format!("mount -t tmpfs -o size={size} none {}", patient.passhold.home().display());
        let runner = format!("unshare --mount --propagation private sh -c '{mount} && exec \"$@\"' sh");
        let line = lines(patient.doctor().under(&runner)).remove("disk").unwrap();
        assert_eq!((line.level.as_str(), line.mend), (level, None), "{}", line.found);
    }
}

/// As `flatpak override --user` writes it.
const FLATPAK: &str = r#"mkdir -p "$HOME/.local/share/flatpak/overrides"
[ "$1 $2 $3" = "override --user --device=all" ] && printf '[Context]\ndevices=all;\n' > "$HOME/.local/share/flatpak/overrides/$4""#;

#[test]
fn browsers_in_a_sandbox_are_let_see_devices_where_that_can_be() {
    let ward = Ward::new(Machine::new());
    ward.machine.program("flatpak", FLATPAK);
    assert!(ward.look("flatpak").is_none() && ward.look("snap").is_none());
    let app =
        ward.patient.passhold.home().join(".local/share/flatpak/app/org.mozilla.firefox/current/active");
    fs::create_dir_all(&app).unwrap();
    let metadata = |devices: &str| fs::write(app.join("metadata"), format!("[Context]\n{devices}")).unwrap();
    for (devices, level) in [("", "warning"), ("devices=dri;\n", "warning"), ("devices=dri;all;\n", "ok")] {
        metadata(devices);
        assert_eq!(ward.line("flatpak").level, level, "{devices}");
    }
    metadata("devices=dri;\n");
    ward.is_mended("flatpak", "warning", "org.mozilla.firefox sees no devices", &[]);
    ward.machine.write("var/lib/snapd/desktop/applications/firefox_firefox.desktop", "");
    let snap = ward.line("snap");
    assert_eq!((snap.level.as_str(), snap.found.as_str(), snap.mend), ("warning", "firefox is a Snap", None));
}

/// passholdd, as a service on that machine. Killed on drop.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// What starts it there, with its state and its devices in this folder.
fn start(ward: &Ward) -> String {
    let (state, hid) = (ward.machine.path("state"), ward.machine.path("hid"));
    fs::create_dir_all(&state).unwrap();
    fs::create_dir_all(ward.machine.path("run/passhold")).unwrap();
    let (passholdd, tpm) = (Program::Passholdd.path(), ward.patient.tpm.tcti());
    let (program, state, hid) = (passholdd.display(), state.display(), hid.display());
    format!("{program} --system --tpm {tpm} --state {state} --hid seqpacket:{hid}")
}

fn comes_up(ward: &Ward) {
    let started = Instant::now();
    while std::os::unix::net::UnixStream::connect(ward.machine.path("run/passhold/socket")).is_err() {
        assert!(started.elapsed() < Duration::from_secs(10), "passholdd does not come up");
        thread::sleep(Duration::from_millis(10));
    }
}

fn service(ward: &Ward) -> Service {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("exec {} {}", ward.machine.runner(), start(ward))]).stdin(Stdio::null());
    let service = Service(command.spawn().unwrap());
    comes_up(ward);
    service
}

#[test]
fn passholdd_looks_at_the_tpm_and_at_its_users_vault() {
    let ward = Ward::new(Machine::without_devices()).for_user();
    let look = || lines(ward.under(ward.patient.passhold.bare(["doctor", "--json"]), AS_USER));
    assert_eq!(look()["daemon"].found, "passholdd does not run");
    let running = service(&ward);
    let found = look();
    let daemon = "passholdd answers at /run/passhold/socket";
    assert_eq!((found["daemon"].level.as_str(), found["daemon"].found.as_str()), ("ok", daemon));
    assert_eq!((found["tpm"].level.as_str(), found["vault"].mend.as_deref()), ("ok", Some("passhold setup")));
    assert_eq!(found["lockout-auth"].mend.as_deref(), Some("sudo passhold --direct doctor harden"));
    // Nobody can ask her: she has no device.
    assert_eq!(
        (found["hidraw"].found.as_str(), found["hidraw"].mend.as_deref()),
        ("this user has no device", None)
    );
    ward.machine.write("etc/systemd/user/passhold-prompt.service", "");
    let starts = r#"[ "$*" = "--user enable --now passhold-prompt" ] || exit 1
device=/sys/class/hidraw/hidraw3/device
mkdir -p $device && printf 'HID_PHYS=passholdd\nHID_UNIQ=31001\n' > $device/uevent
: > /dev/hidraw3 && chown 31001 /dev/hidraw3"#;
    ward.machine.program("systemctl", starts);
    let mend = look()["hidraw"].mend.clone().unwrap();
    let script = format!("exec {} sh -c \"$MEND\"", ward.machine.runner());
    let mended = ward.under(ward.patient.passhold.bare(["--version"]).env("MEND", &mend), "");
    typed(mended.then(&script).on_terminal(), &mend, &[]);
    assert_eq!(look()["hidraw"].found, "/dev/hidraw3 can be opened", "{mend}");
    let setup = ward.under(ward.patient.passhold.bare(["setup"]), AS_USER);
    setup.pin(PIN).run().expect_code(0);
    let check = ward.patient.passhold.bare(["doctor", "--json", "--check-pin"]);
    let found = lines(ward.under(check, AS_USER).pin(PIN));
    for (id, expected) in [
        ("vault-permissions", "only its owner can reach it"),
        ("vault-keys", "this TPM holds the vault's keys"),
        ("pin-tries", "8 tries left, counted by the TPM"),
        ("generation", "file and TPM are at change 1"),
    ] {
        assert_eq!((found[id].level.as_str(), found[id].found.as_str()), ("ok", expected));
    }
    // Which key it was the vault's file says, and that passholdd alone can read.
    ward.patient.tool("tpm2_evictcontrol", &["-C", "o", "-c", "0x81000001"]);
    assert_eq!(look()["srk"].mend.as_deref(), Some("passhold list"));
    ward.under(ward.patient.passhold.bare(["list"]), AS_USER).run().expect_code(0);
    assert_eq!(look()["srk"].level, "ok");
    let harden = ward.under(ward.patient.passhold.bare(["doctor", "harden"]), AS_USER).run().expect_code(2);
    assert!(
        harden.stderr.contains("passholdd lets nobody change what all users of the TPM share"),
        "{}",
        harden.stderr
    );
    drop(running);
}

#[test]
fn a_service_that_does_not_answer_is_started_again() {
    let ward = Ward::new(Machine::new());
    let run = start(&ward);
    let socket = ward.machine.path("run/passhold/socket");
    drop(UnixListener::bind(&socket).unwrap());
    let dead = "passholdd does not answer at /run/passhold/socket: Connection refused (os error 111)";
    let line = ward.line("daemon");
    assert_eq!(
        (line.level.as_str(), line.found.as_str(), line.mend),
        ("problem", dead, None),
        "no service to start"
    );
    let named = ward.machine.path("nowhere");
    drop(UnixListener::bind(&named).unwrap());
    let call = ward.patient.passhold.bare(["--socket"]).arg(&named).arg("doctor").arg("--json");
    let found =
        format!("passholdd does not answer at {}: Connection refused (os error 111)", named.display());
    assert_eq!(lines(call)["daemon"].found, found);
    // What has this name on a machine without systemd waits for somebody who starts it.
    ward.machine.write("etc/systemd/system/passholdd.service", "");
    let (asked, up) = (ward.machine.path("asked"), ward.machine.path("up"));
    let wait = format!(
        "[ $1 = restart ] || exit 0; : > {}; until [ -e {} ]; do sleep 0.01; done",
        asked.display(),
        up.display()
    );
    ward.machine.program("systemctl", &wait);
    let runner = ward.machine.runner();
    let systemd = thread::spawn({
        let (asked, up) = (asked.clone(), up.clone());
        move || {
            let started = Instant::now();
            while !asked.exists() {
                assert!(started.elapsed() < Duration::from_secs(20), "nobody asked");
                thread::sleep(Duration::from_millis(10));
            }
            let service =
                Service(Command::new("sh").args(["-c", &format!("exec {runner} {run}")]).spawn().unwrap());
            while std::os::unix::net::UnixStream::connect(&socket).is_err() {
                assert!(started.elapsed() < Duration::from_secs(20), "passholdd does not come up");
                thread::sleep(Duration::from_millis(10));
            }
            fs::write(up, "").unwrap();
            service
        }
    });
    ward.is_mended("daemon", "problem", dead, &[]);
    drop(systemd.join().unwrap());
}

#[test]
fn exit_0_where_nothing_is_wrong() {
    let tpm = TestTpm::start().unwrap();
    let proxy = Proxy::start(tpm.port()).unwrap();
    // Software does not pass for more than it is, so it says that it is Intel's.
    let intel: Rewriter = Arc::new(|_, mut reply| {
        if let Some(at) = reply.windows(4).position(|window| window == 0x105_u32.to_be_bytes()) {
            reply[at + 4..at + 8].copy_from_slice(b"INTC");
        }
        reply
    });
    proxy.arm(Fault::continuous(0, FaultKind::Rewrite(intel)));
    let machine = Machine::without_devices().with_group();
    let patient = Patient::on(Passhold::new(&proxy.tcti()), tpm);
    let ward = Ward { patient, machine, user: "" };
    ward.machine.write("dev/uhid", "");
    ward.machine.write(RULE, include_str!("../../dist/udev/72-passhold.rules"));
    let _service = service(&ward);
    ward.patient.passhold.call(["setup"]).pin(PIN).run().expect_code(0);
    ward.is_mended("lockout-auth", "warning", "the lockout authorization is empty", &WRITTEN);
    let run = ward.under(ward.patient.passhold.call(["doctor"]), "").run().expect_code(0);
    assert_eq!(run.stderr, "");
    assert!(!run.stdout.contains("warning") && !run.stdout.contains("problem"), "{}", run.stdout);
}
