//! Where secrets are when an operation is over: nowhere. A process that ran it is searched whole.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::print_stdout,
    clippy::pedantic
)]

mod common;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use memchr::memmem::Finder;
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};
use swtpm_tests::{
    Pinentry, Program, Scene, Tmux, creation_options, key_store, pin, proxy::Proxy, request_options, rng,
};
use vault_core::{
    RecoveryCode, RecoverySecrets, Vault,
    pin::Pin,
    webauthn::{CreateRequest, GetRequest, Origin, UserPresent},
};
use zeroize::Zeroizing;

use common::{Facts, ORIGIN, RP, Wire, enroll};

/// Set in the process that runs an operation and is searched.
const CHILD: &str = "PASSHOLD_SECRETS_CHILD";

// ---------------------------------------------------------------------------------------------
// What is searched for.

/// A secret, as the bytes that would show it.
#[derive(Clone)]
struct Needle {
    name: String,
    bytes: Vec<u8>,
}

/// Every secret of a vault whose PIN is `text`.
fn needles_of(facts: &Facts, tpm: &Wire, text: &str) -> Vec<Needle> {
    let secrets = facts.secrets(tpm, text);
    let mut needles = pin_needles("", text);
    needles.extend(split("K1", &secrets.k1));
    needles.extend(split("K3", &secrets.k3));
    needles.extend(split("S", &secrets.s));
    needles.extend(split("container key", &facts.container_key));
    needles
}

fn pin_needles(which: &str, text: &str) -> Vec<Needle> {
    let material = &Sha256::digest(text)[..16];
    let mut needles = vec![Needle { name: format!("{which}PIN"), bytes: text.into() }];
    needles.extend(split(&format!("{which}material"), material));
    needles
}

/// Both halves: the allocator writes over the beginning of what is freed.
fn split(name: &str, secret: &[u8]) -> Vec<Needle> {
    let half = secret.len() / 2;
    let parts = [("first half", &secret[..half]), ("second half", &secret[half..])];
    let plain = parts.map(|(part, bytes)| Needle { name: format!("{name}, {part}"), bytes: bytes.to_vec() });
    // SHA-256 works on words, which lie in memory the other way round.
    let turned = parts
        .map(|(part, bytes)| Needle { name: format!("{name}, {part}, words turned"), bytes: turn(bytes) });
    plain.into_iter().chain(turned).collect()
}

fn turn(bytes: &[u8]) -> Vec<u8> {
    bytes.chunks(4).flat_map(|word| word.iter().rev()).copied().collect()
}

/// Hits per secret and place.
type Hits = BTreeMap<(String, String), usize>;

fn search(place: &str, data: &[u8], needles: &[Needle], hits: &mut Hits) {
    for needle in needles {
        let found = Finder::new(&needle.bytes).find_iter(data).count();
        if found > 0 {
            *hits.entry((needle.name.clone(), place.to_owned())).or_default() += found;
        }
    }
}

/// All of a process's memory that can be read.
fn search_memory(pid: u32, needles: &[Needle]) -> (Hits, usize) {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let (mut hits, mut searched) = (Hits::new(), 0);
    for line in maps.lines() {
        let fields: Vec<_> = line.split_whitespace().collect();
        let (start, end) = fields[0].split_once('-').unwrap();
        let address = |text| u64::from_str_radix(text, 16).unwrap();
        let (start, end) = (address(start), address(end));
        let mut data = vec![0; usize::try_from(end - start).unwrap()];
        // [vvar] and pages that were never touched past a file's end cannot be read.
        if memory.read_exact_at(&mut data, start).is_err() {
            continue;
        }
        searched += data.len();
        let name = fields.get(5..).map(|rest| rest.join(" ")).filter(|n| !n.is_empty());
        let place = name.unwrap_or_else(|| "anonymous".to_owned());
        let place = place.rsplit('/').next().unwrap().to_owned();
        if std::env::var_os("PASSHOLD_SECRETS_WHERE").is_some() {
            for needle in needles {
                for at in Finder::new(&needle.bytes).find_iter(&data) {
                    println!(
                        "    {} at {:x} = {place}+{at:x} of {:x}",
                        needle.name,
                        start + at as u64,
                        end - start
                    );
                }
            }
        }
        search(&place, &data, needles, &mut hits);
    }
    (hits, searched)
}

fn show(hits: &Hits) -> String {
    let mut text = String::new();
    for ((secret, place), count) in hits {
        write!(text, "\n      {secret} in {place}: {count}").unwrap();
    }
    text
}

// ---------------------------------------------------------------------------------------------
// The process that runs an operation with the library.

/// Reads lines byte by byte into memory that is wiped, as the command line does.
struct Input(File);

impl Input {
    fn line(&mut self) -> Zeroizing<String> {
        let mut line = Zeroizing::new(String::with_capacity(1024));
        let mut byte = Zeroizing::new([0]);
        while self.0.read(byte.as_mut_slice()).unwrap() == 1 && byte[0] != b'\n' {
            line.push(byte[0].into());
        }
        line
    }

    fn material(&mut self) -> vault_core::pin::PinMaterial {
        Pin::new(&self.line()).unwrap().material()
    }

    /// Says that a moment has come, and waits until it has been looked at.
    fn moment(&mut self, name: &str) {
        println!("moment {name}");
        assert_eq!(*self.line(), "go");
    }
}

/// K1 and K3 of a PIN that is not, or not yet, the vault's.
fn other_needles(facts: &Facts, which: &str, text: &str) -> Vec<Needle> {
    let (k1, k3) = facts.derive(text);
    let mut needles = pin_needles(which, text);
    needles.extend(split(&format!("{which}K1"), &k1));
    needles.extend(split(&format!("{which}K3"), &k3));
    needles
}

/// A recovery code as it is typed, as bytes, and what is derived from it.
fn code_needles(facts: &Facts, code: &str) -> Vec<Needle> {
    let bytes = code.replace('-', "").bytes().take(26).fold(0_u128, |bytes, letter| {
        let value = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ".iter().position(|l| *l == letter).unwrap();
        bytes << 5 | value as u128
    });
    let secrets = RecoverySecrets::derive(&RecoveryCode::parse(code).unwrap(), &facts.vault_id);
    let mut needles = vec![Needle { name: "code as text".into(), bytes: code.into() }];
    needles.extend(split("code", &bytes.to_be_bytes()));
    needles.extend(split("code, number", &bytes.to_le_bytes()));
    needles.extend(split("code's mask", secrets.mask.expose_secret()));
    needles
}

/// Nothing in an ordinary run; with the environment variable, the process that is searched.
#[test]
fn child_process() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let mut input = Input(File::open("/proc/self/fd/0").unwrap());
    let marker: Box<[u8; 16]> = Box::new(input.line().as_bytes().try_into().unwrap());
    let operation = input.line().to_string();
    let dir = PathBuf::from(&*input.line());
    let mut tpm = key_store(&input.line());
    run(&operation, &dir, &mut tpm, &mut input);
    drop(tpm);
    input.moment("dropped");
    assert_ne!(*marker, [0; 16]);
}

fn run(operation: &str, dir: &Path, tpm: &mut tpm_backend::Tpm, input: &mut Input) {
    let origin = || Origin::parse(ORIGIN).unwrap();
    match operation {
        "setup" => {
            let material = input.material();
            vault_core::setup(dir, tpm, &material, 0, &mut rng()).unwrap();
            drop(material);
            return input.moment("held");
        }
        "wipe" => {
            vault_core::wipe(dir, tpm).unwrap();
            return input.moment("held");
        }
        _ => {}
    }
    let mut vault = Vault::open(dir, tpm).unwrap();
    let id = vault.accounts().unwrap()[0].0;
    match operation {
        "list" => {}
        "status" => drop(vault.status().unwrap()),
        "rename" => drop(vault.rename(id, Some("Work".into()), &mut rng()).unwrap()),
        _ => {
            let material = input.material();
            if operation == "wrong PIN" {
                assert!(vault.unlock(&material).is_err());
                drop(material);
                return input.moment("held");
            }
            let unlocked = vault.unlock(&material).unwrap();
            drop(material);
            if operation == "enrol" || operation == "delete" {
                input.moment("unlocked");
            }
            match operation {
                "enrol" | "enrol with attestation" => {
                    let statement = if operation == "enrol" { "none" } else { "direct" };
                    let json = creation_options(RP, "bob", statement);
                    let request = CreateRequest::from_json(&json, origin()).unwrap();
                    unlocked.enroll(&request, None, UserPresent::confirmed(), 0, &mut rng()).unwrap();
                }
                "sign" => {
                    let request = GetRequest::from_json(&request_options(RP), origin()).unwrap();
                    drop(unlocked.sign(&request, id, UserPresent::confirmed(), 0, &mut rng()).unwrap());
                }
                "delete" => unlocked.delete(id, 0, &mut rng()).map(drop).unwrap(),
                "PIN change" => {
                    let new = input.material();
                    unlocked.change_pin(&new, &mut rng()).unwrap();
                }
                other => panic!("{other}"),
            }
        }
    }
    input.moment("held");
    drop(vault);
}

/// The process, from outside.
struct Searched {
    process: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Searched {
    fn start(operation: &str, dir: &Path, tcti: &str, marker: &str, pins: &[&str]) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["child_process", "--exact", "--nocapture", "--test-threads=1"])
            .env(CHILD, "1")
            // What freed memory holds is the program's matter, not the library's: passhold has glibc wipe it.
            .env("GLIBC_TUNABLES", "glibc.malloc.perturb=90")
            .env("TSS2_LOG", "all+NONE")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = [&[marker, operation, dir.to_str().unwrap(), tcti], pins].concat();
        writeln!(process.stdin.as_mut().unwrap(), "{}", lines.join("\n")).unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        Self { process, output }
    }

    /// The next moment, until there is none.
    fn moment(&mut self) -> Option<String> {
        let mut line = String::new();
        while self.output.read_line(&mut line).unwrap() > 0 {
            if let Some((_, moment)) = line.trim().split_once("moment ") {
                return Some(moment.to_owned());
            }
            line.clear();
        }
        None
    }

    fn go(&mut self) {
        writeln!(self.process.stdin.as_mut().unwrap(), "go").unwrap();
    }
}

impl Drop for Searched {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

const OPERATIONS: [&str; 11] = [
    "setup",
    "list",
    "status",
    "rename",
    "wrong PIN",
    "sign",
    "enrol",
    "enrol with attestation",
    "delete",
    "PIN change",
    "wipe",
];

/// Random, so that neither this program nor another run holds them.
fn random_pin() -> String {
    let bytes: [u8; 6] = std::array::from_fn(|_| u8::try_from(getrandom::u32().unwrap() & 0xff).unwrap());
    format!("q{}", bytes.map(|b| format!("{b:02x}")).concat())
}

#[test]
fn no_secret_is_in_memory_after_an_operation() {
    let (mut places, mut bytes, mut worst) = (0, 0, String::new());
    for operation in OPERATIONS {
        let scene = Scene::empty();
        let (text, new, marker) = (random_pin(), random_pin(), random_pin() + "...");
        let mut store = scene.tpm.key_store();
        if operation != "setup" {
            vault_core::setup(scene.dir(), &mut store, &pin(&text), 0, &mut rng()).unwrap();
            enroll(scene.dir(), &mut store, &text, "alice", "none");
        }
        drop(store);
        let wire = Wire::new(scene.tpm.port());
        let facts = || Facts::of(scene.dir(), &mut scene.tpm.key_store());
        let proxy = Proxy::start(scene.tpm.port()).unwrap();
        let wrong = random_pin();
        let all = || {
            let facts = facts();
            [
                needles_of(&facts, &wire, &text),
                other_needles(&facts, "new ", &new),
                other_needles(&facts, "wrong ", &wrong),
            ]
            .concat()
        };
        let mut needles = if operation == "setup" { Vec::new() } else { all() };
        let pins: Vec<&str> = match operation {
            "wrong PIN" => vec![&wrong],
            "PIN change" => vec![&text, &new],
            "list" | "status" | "rename" | "wipe" => vec![],
            _ => vec![&text],
        };
        let mut child = Searched::start(operation, scene.dir(), &proxy.tcti(), &marker, &pins);
        let mut controls = 0;
        while let Some(moment) = child.moment() {
            if needles.is_empty() {
                needles = all();
            }
            let (hits, searched) = search_memory(child.process.id(), &needles);
            // The control: the search finds what is there.
            let marker = [Needle { name: "marker".into(), bytes: marker.clone().into_bytes() }];
            assert_ne!(
                search_memory(child.process.id(), &marker).0,
                Hits::new(),
                "a value that is in memory"
            );
            if moment == "unlocked" {
                controls += 1;
                let held = |name: &str| hits.keys().any(|(needle, _)| needle.starts_with(name));
                assert!(
                    held("S,") && held("K1,") && held("K3,"),
                    "secrets in use are found: {}",
                    show(&hits)
                );
            } else if !hits.is_empty() {
                write!(worst, "\n{operation}, {moment}:{}", show(&hits)).unwrap();
            }
            println!("{operation}, {moment}: {} hits{}", hits.values().sum::<usize>(), show(&hits));
            (places, bytes) = (places + 1, bytes + searched);
            child.go();
        }
        assert_eq!(controls, usize::from(matches!(operation, "enrol" | "delete")));
        let (mut hits, heard) = (Hits::new(), proxy.wire());
        search("the TPM's wire", &heard, &needles, &mut hits);
        assert_eq!(show(&hits), "", "{operation}: {} bytes heard", heard.len());
    }
    println!(
        "secrets in memory: {} operations, {places} moments, {} MiB searched",
        OPERATIONS.len(),
        bytes >> 20
    );
    assert_eq!(worst, "", "secrets in memory");
}

// ---------------------------------------------------------------------------------------------
// The command line.

/// The program under test, or another one to compare.
fn passhold() -> PathBuf {
    std::env::var_os("PASSHOLD_BINARY").map_or_else(|| Program::Passhold.path(), PathBuf::from)
}

/// A person's files, a vault on a recording proxy, and its secrets.
struct Desk {
    scene: Scene,
    proxy: Proxy,
    home: tempfile::TempDir,
    text: String,
    code: Zeroizing<String>,
}

impl Desk {
    fn new(with_vault: bool) -> Self {
        let (scene, text, code) = (Scene::empty(), random_pin(), RecoveryCode::random(&mut rng()));
        if with_vault {
            let mut store = scene.tpm.key_store();
            vault_core::setup(scene.dir(), &mut store, &pin(&text), 0, &mut rng()).unwrap();
            enroll(scene.dir(), &mut store, &text, "alice", "none");
            let mut vault = Vault::open(scene.dir(), &mut store).unwrap();
            let unlocked = vault.unlock(&pin(&text)).unwrap();
            unlocked.renew_recovery_code(&code, 0, &mut rng()).unwrap();
        }
        let home = tempfile::tempdir().unwrap();
        for folder in ["tmp", "cwd"] {
            fs::create_dir(home.path().join(folder)).unwrap();
        }
        fs::write(home.path().join("create"), creation_options(RP, "bob", "direct")).unwrap();
        fs::write(home.path().join("get"), request_options(RP)).unwrap();
        let proxy = Proxy::start(scene.tpm.port()).unwrap();
        Self { scene, proxy, home, text, code: code.to_text() }
    }

    fn needles(&self, new: &str, wrong: &str) -> Vec<Needle> {
        let facts = Facts::of(self.scene.dir(), &mut self.scene.tpm.key_store());
        let own = needles_of(&facts, &Wire::new(self.scene.tpm.port()), &self.text);
        let code = code_needles(&facts, &self.code);
        [own, other_needles(&facts, "new ", new), other_needles(&facts, "wrong ", wrong), code].concat()
    }

    /// `program` runs the command line, whose PINs come from standard input if any are typed.
    fn start(&self, mut program: Command, line: &str, typed: &str) -> Child {
        let home = self.home.path();
        let line = line.replace("HOME", home.to_str().unwrap());
        let mut child = program
            .args(if typed.is_empty() { &[][..] } else { &["--pin-fd", "0"] })
            .args(["--tpm", &self.proxy.tcti(), "--vault"])
            .arg(self.scene.dir())
            .args(line.split(' '))
            .env("HOME", home)
            .env("TMPDIR", home.join("tmp"))
            .current_dir(home.join("cwd"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.as_mut().unwrap().write_all(typed.as_bytes()).unwrap();
        child
    }

    /// Everything a person's folders hold.
    fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut folders = vec![self.home.path().to_owned(), self.scene.dir().to_owned()];
        let mut files = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    files.push((path.clone(), fs::read(path).unwrap()));
                }
            }
        }
        files
    }
}

/// The command line that strace started; strace forks others before it, to try the kernel.
fn passhold_under(strace: u32) -> u32 {
    loop {
        let children = fs::read_to_string(format!("/proc/{strace}/task/{strace}/children")).unwrap();
        let name = |pid: &str| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        if let Some(child) = children.split_whitespace().find(|pid| name(pid).trim() == "passhold") {
            return child.parse().unwrap();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until a process is at its `exit_group`, where strace holds it.
fn wait_for_exit(pid: u32) {
    for _ in 0..4000 {
        let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
        if call.starts_with("231 ") {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("it does not exit");
}

const COMMANDS: [&str; 13] = [
    "setup",
    "list",
    "status",
    "enroll --origin https://example.org --options HOME/create",
    "sign --origin https://example.org --options HOME/get",
    "rename 1 Work",
    "pin change",
    "pin reset",
    "recovery renew",
    "delete 1",
    "wrong",
    "pinentry",
    "wipe --yes",
];

#[test]
fn the_command_line_leaves_no_secret_anywhere() {
    let (mut places, mut bytes, mut worst) = (0, 0, String::new());
    for line in COMMANDS {
        let desk = Desk::new(line != "setup");
        let (new, wrong) = (random_pin(), random_pin());
        let mut needles = if line == "setup" { Vec::new() } else { desk.needles(&new, &wrong) };
        let typed = match line {
            "pin change" => format!("{}\n{new}\n", desk.text),
            "pin reset" => format!("{}\n{new}\n", *desk.code),
            "wrong" => format!("{wrong}\n"),
            "pinentry" => String::new(),
            _ => format!("{}\n", desk.text),
        };
        let pinentry = Pinentry::new();
        pinentry.person(&[&format!("echo 'D {}'; echo OK", desk.text)]);
        // Without a terminal, so that pinentry is asked where no PIN is typed.
        let mut strace = Command::new("setsid");
        strace.env("PASSHOLD_PINENTRY", pinentry.path().join("pinentry")).arg("strace");
        // Long enough to be looked at; it is killed then.
        let hold = "inject=exit_group:delay_enter=60000000";
        strace.args(["-o", "/dev/null", "-e", "trace=exit_group", "-e", hold, "--"]).arg(passhold());
        let run = match line {
            "wrong" => "delete 1",
            "pinentry" => "sign --origin https://example.org --options HOME/get",
            line => line,
        };
        let mut child = desk.start(strace, run, &typed);
        let pid = passhold_under(child.id());
        wait_for_exit(pid);
        if needles.is_empty() {
            needles = desk.needles(&new, &wrong);
        }
        let (mut hits, searched) = search_memory(pid, &needles);
        let mut look = |place: &str, data: &[u8]| {
            bytes += data.len();
            places += 1;
            search(place, data, &needles, &mut hits);
        };
        look("argv", &fs::read(format!("/proc/{pid}/cmdline")).unwrap());
        look("environment", &fs::read(format!("/proc/{pid}/environ")).unwrap());
        for (path, data) in desk.files() {
            look(&path.display().to_string(), &data);
        }
        look("the TPM's wire", &desk.proxy.wire());
        // First the process that strace holds: strace dies of the same signal.
        Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
        drop(child.kill());
        let output = child.wait_with_output().unwrap();
        look("stdout", &output.stdout);
        look("stderr", &output.stderr);
        bytes += searched;
        assert_eq!(pinentry.told().contains("GETPIN"), line == "pinentry");
        println!("passhold {line}: {} hits{}", hits.values().sum::<usize>(), show(&hits));
        if !hits.is_empty() {
            write!(worst, "\n{line}:{}", show(&hits)).unwrap();
        }
    }
    println!(
        "secrets of the command line: {} commands, {places} places, {} MiB searched",
        COMMANDS.len(),
        bytes >> 20
    );
    assert_eq!(worst, "", "secrets are somewhere");
}

/// What is typed there comes as keys, one by one, through code that draws.
#[test]
fn the_tui_keeps_no_secret_in_memory() {
    let desk = Desk::new(true);
    let (new, wrong) = (random_pin(), random_pin());
    let needles = desk.needles(&new, &wrong);
    let tmux = Tmux::start(desk.home.path(), (80, 24));
    let (program, vault) = (passhold(), desk.scene.dir().display());
    tmux.type_line(&format!("{} --tpm {} --vault {vault} tui", program.display(), desk.proxy.tcti()));
    tmux.wait_for("alice");
    let mut searched = 0;
    let mut nothing_is_left = |deed: &str| {
        let (hits, bytes) = search_memory(tmux.child(), &needles);
        searched += bytes;
        assert_eq!(show(&hits), "", "{deed}");
    };
    tmux.press(&["d"]);
    tmux.type_hidden("PIN: ", &wrong);
    tmux.press(&["Enter"]);
    tmux.wait_for("wrong PIN; 7 tries left");
    nothing_is_left("a wrong PIN");
    tmux.type_hidden("PIN: ", &desk.text);
    let (hits, _) = search_memory(tmux.child(), &needles);
    assert_eq!(hits.values().sum::<usize>(), 1, "while it is typed it is in one place: {}", show(&hits));
    tmux.press(&["C-c"]);
    tmux.wait_for("cancelled. Nothing was done.");
    nothing_is_left("a PIN that was typed and not given");
    tmux.wait_for("7 PIN tries left");
    tmux.press(&["p"]);
    tmux.type_hidden("PIN: ", &desk.text);
    tmux.press(&["Enter"]);
    tmux.type_hidden("New PIN: ", &new);
    tmux.press(&["Enter"]);
    tmux.type_hidden("Once more: ", &new);
    tmux.press(&["Enter"]);
    tmux.wait_for("The PIN is changed");
    nothing_is_left("a PIN change");
    tmux.wait_for("8 PIN tries left");
    tmux.press(&["f"]);
    tmux.type_hidden("Recovery code: ", &desk.code);
    tmux.press(&["Enter"]);
    tmux.type_hidden("New PIN: ", &desk.text);
    tmux.press(&["Enter"]);
    tmux.type_hidden("Once more: ", &desk.text);
    tmux.press(&["Enter"]);
    tmux.wait_for("The new PIN is set");
    nothing_is_left("a reset");
    println!("secrets of the tui: 4 moments, {} MiB searched", searched >> 20);
}

/// Where a dying process would leave its core.
fn cores(folder: &Path) -> usize {
    let names = fs::read_dir(folder).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.contains("core")).count()
}

#[test]
fn a_killed_process_leaves_no_core() {
    assert!(
        !fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap().starts_with(['|', '/']),
        "cores go elsewhere"
    );
    let shell = |script: &str| {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("ulimit -c unlimited; {script}"));
        shell
    };
    // The control: a process that is not hardened leaves one.
    let elsewhere = tempfile::tempdir().unwrap();
    let mut other = shell("exec sleep 60").current_dir(&elsewhere).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(200));
    Command::new("kill").args(["-SEGV", &other.id().to_string()]).status().unwrap();
    drop(other.wait());
    let control = cores(elsewhere.path());
    let (mut kills, mut left) = (0, 0);
    for signal in ["-SEGV", "-ABRT", "-QUIT"] {
        // A TPM each: without a resource manager, what a killed process had loaded stays.
        let desk = Desk::new(true);
        let mut program = shell("exec \"$0\" \"$@\"");
        program.arg(passhold());
        // The old PIN is proven, and the process waits for the new one.
        let mut child = desk.start(program, "pin change", &format!("{}\n", desk.text));
        // It has the PIN's secrets: the TPM was asked for S.
        let waiting = (0..500).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            let waits = fs::read_to_string(format!("/proc/{}/syscall", child.id()))
                .unwrap_or_default()
                .starts_with("0 0x");
            waits && desk.proxy.codes().contains(&0x151)
        });
        assert!(waiting);
        std::thread::sleep(Duration::from_millis(100));
        Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        assert!(!child.wait().unwrap().success());
        kills += 1;
        left += cores(&desk.home.path().join("cwd"));
    }
    println!("cores: {left} of {kills} killed processes, {control} of 1 control");
    assert_eq!((left, control), (0, 1));
}
