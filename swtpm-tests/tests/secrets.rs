//! Where secrets are when an operation is over: nowhere. A process that ran it is searched whole.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    os::unix::{fs::FileExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use memchr::memmem::Finder;
use sha2::{Digest, Sha256};
use swtpm_tests::{Scene, creation_options, key_store, pin, proxy::Proxy, request_options, rng};
use vault_core::{
    Vault, container::AccountId,
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
struct Needle {
    name: String,
    bytes: Vec<u8>,
}

/// Every secret of a vault whose PIN is `text`.
fn needles_of(facts: &Facts, tpm: &Wire, text: &str, old: &str) -> Vec<Needle> {
    let secrets = facts.secrets(tpm, text);
    let (k1, k3) = facts.derive(old);
    let mut needles = pin_needles("", text);
    needles.extend(split("K1", &secrets.k1));
    needles.extend(split("K3", &secrets.k3));
    needles.extend(split("S", &secrets.s));
    needles.extend(split("container key", &facts.container_key));
    if old != text {
        needles.extend(pin_needles("old ", old));
        needles.extend(split("old K1", &k1));
        needles.extend(split("old K3", &k3));
    }
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
    [("first half", &secret[..half]), ("second half", &secret[half..])]
        .map(|(part, bytes)| Needle { name: format!("{name}, {part}"), bytes: bytes.to_vec() })
        .into()
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
                    println!("    {} at {:x} = {place}+{at:x} of {:x}", needle.name, start + at as u64, end - start);
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
        writeln!(std::io::stdout(), "moment {name}").unwrap();
        assert_eq!(*self.line(), "go");
    }
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
            vault_core::setup(dir, tpm, &material, &mut rng()).unwrap();
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
    let id = AccountId::from(vault.accounts().unwrap()[0].0);
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
                    unlocked.enroll(&request, UserPresent::confirmed(), 0, &mut rng()).unwrap();
                }
                "sign" => {
                    let request = GetRequest::from_json(&request_options(RP), origin()).unwrap();
                    drop(unlocked.sign(&request, id, UserPresent::confirmed()).unwrap());
                }
                "delete" => unlocked.delete(id).unwrap(),
                "PIN change" => {
                    let new = input.material();
                    unlocked.change_pin(&new).unwrap();
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
    "setup", "list", "status", "rename", "wrong PIN", "sign", "enrol", "enrol with attestation", "delete",
    "PIN change", "wipe",
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
            vault_core::setup(scene.dir(), &mut store, &pin(&text), &mut rng()).unwrap();
            enroll(scene.dir(), &mut store, &text, "alice", "none");
        }
        drop(store);
        let wire = Wire::new(scene.tpm.port());
        let facts = || Facts::of(scene.dir(), &mut scene.tpm.key_store());
        let known = (operation != "setup").then(|| needles_of(&facts(), &wire, &text, &text));
        let proxy = Proxy::start(scene.tpm.port()).unwrap();
        let wrong = random_pin();
        let pins: Vec<&str> = match operation {
            "wrong PIN" => vec![&wrong],
            "PIN change" => vec![&text, &new],
            "list" | "status" | "rename" | "wipe" => vec![],
            _ => vec![&text],
        };
        let mut child = Searched::start(operation, scene.dir(), &proxy.tcti(), &marker, &pins);
        while let Some(moment) = child.moment() {
            let mut needles = match &known {
                None => needles_of(&facts(), &wire, &text, &text),
                Some(_) => Vec::new(),
            };
            if let Some(known) = &known {
                needles.extend(known.iter().map(|n| Needle { name: n.name.clone(), bytes: n.bytes.clone() }));
            }
            if operation == "PIN change" {
                needles.extend(pin_needles("new ", &new));
            }
            if operation == "wrong PIN" {
                needles.extend(pin_needles("wrong ", &wrong));
            }
            needles.push(Needle { name: "marker".into(), bytes: marker.clone().into_bytes() });
            let (mut hits, searched) = search_memory(child.process.id(), &needles);
            hits.retain(|(name, place), count| {
                if name == "marker" && place == "[heap]" { *count == 0 } else { true }
            });
            println!("{operation}, {moment}: {} hits{}", hits.values().sum::<usize>(), show(&hits));
            if moment != "unlocked" && !hits.is_empty() {
                write!(worst, "\n{operation}, {moment}:{}", show(&hits)).unwrap();
            }
            (places, bytes) = (places + 1, bytes + searched);
            child.go();
        }
    }
    println!("secrets in memory: {} operations, {places} moments, {} MiB searched", OPERATIONS.len(), bytes >> 20);
    assert_eq!(worst, "", "secrets in memory");
}
