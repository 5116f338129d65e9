//! Terminal and device use one vault at the same time: together they lose no passkey, and neither waits for ever.
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
mod platform;

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use base64ct::{Base64UrlUnpadded, Encoding};
use common::{ORIGIN, RP, Wire};
use platform::{
    Token,
    site::{Answer, MAKE, MANAGE, Passkey, Refusal, SIGN, Site, status},
};
use sha2::{Digest, Sha256};
use swtpm_tests::{
    Call, Device, Dice, PIN, Passhold, Run, TestTpm, creation_options, request_options, scale,
};

/// How long a call may take: the other side's operation, our patience with it (10 s), and a slow machine.
const BOUND: Duration = Duration::from_secs(30);

/// What an operation came to. Anything else fails the test.
#[derive(Debug)]
enum Said<T> {
    Done(T),
    WrongPin,
    NoPasskey,
    Busy,
}

impl<T> Said<T> {
    fn map<U>(self, to: impl FnOnce(T) -> U) -> Said<U> {
        match self {
            Self::Done(value) => Said::Done(to(value)),
            Self::WrongPin => Said::WrongPin,
            Self::NoPasskey => Said::NoPasskey,
            Self::Busy => Said::Busy,
        }
    }
}

/// A way to use the vault.
trait Side {
    fn enroll(&mut self, pin: &str, user: &str) -> Said<Passkey>;
    fn sign(&mut self, pin: &str, passkey: &Passkey) -> Said<()>;
    fn rename(&mut self, pin: &str, passkey: &Known, name: &str) -> Said<()>;
    fn delete(&mut self, pin: &str, passkey: &Passkey) -> Said<()>;
    /// The credential IDs, and the names that this side gives.
    fn list(&mut self, pin: &str) -> Said<BTreeMap<Vec<u8>, String>>;
    fn change_pin(&mut self, old: &str, new: &str) -> Said<()>;
}

/// A passkey that was acknowledged.
#[derive(Clone)]
struct Known {
    user: String,
    passkey: Passkey,
    /// What each side calls it.
    names: BTreeMap<&'static str, String>,
    /// How many are about to delete it.
    leaving: usize,
    gone: bool,
}

/// The PIN, and what tells whether it was another one meanwhile.
#[derive(Clone)]
struct PinNow {
    text: String,
    version: usize,
    changing: usize,
}

struct World {
    known: Mutex<Vec<Known>>,
    pin: Mutex<PinNow>,
    tally: Mutex<BTreeMap<String, usize>>,
    slowest: Mutex<Duration>,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    /// One random operation by this side, and whether what it said can be.
    fn step(&self, name: &'static str, side: &mut dyn Side, dice: &mut Dice) {
        let (before, pin) = (lock(&self.known).clone(), lock(&self.pin).clone());
        let began = Instant::now();
        let user = format!("{name} {}", dice.below(usize::MAX));
        let which = self.choose(&before, dice);
        let (operation, said) = match (dice.below(100), which) {
            (0..10, _) => ("list", side.list(&pin.text).map(|listed| self.check_list(&before, &listed))),
            (10..14, _) => ("change the PIN", self.change_pin(side, dice)),
            (14..40, _) | (_, None) => {
                ("enroll", side.enroll(&pin.text, &user).map(|made| self.enrolled(&user, made)))
            }
            (40..47, Some(at)) if name == "device" => ("replace", self.replace(side, &pin, at)),
            (40..70, Some(at)) => {
                let said = side.sign(&pin.text, &before[at].passkey);
                ("sign", said.map(|()| assert!(!before[at].gone, "{name}: a deleted passkey signs")))
            }
            (70..82, Some(at)) => {
                let said = side.rename(&pin.text, &before[at], &user);
                ("rename", said.map(|()| drop(lock(&self.known)[at].names.insert(name, user))))
            }
            (_, Some(at)) => ("delete", self.leaving(at, || side.delete(&pin.text, &before[at].passkey))),
        };
        let took = began.elapsed();
        assert!(took < BOUND, "{name}: {operation} took {took:?}");
        let outcome = match said {
            Said::Done(()) => "done",
            Said::WrongPin => {
                let now = lock(&self.pin);
                let meanwhile = now.version != pin.version || now.changing + pin.changing > 0;
                assert!(meanwhile, "{name}: {operation}: the right PIN is called wrong");
                "wrong PIN"
            }
            Said::NoPasskey => {
                let now = &lock(&self.known)[which.unwrap()];
                assert!(now.gone || now.leaving > 0, "{name}: {operation}: {} is lost", now.user);
                "gone"
            }
            Said::Busy => "busy",
        };
        *lock(&self.tally).entry(format!("{name} {operation}: {outcome}")).or_default() += 1;
        let mut slowest = lock(&self.slowest);
        *slowest = took.max(*slowest);
    }

    /// A passkey; now and then one that is gone.
    fn choose(&self, known: &[Known], dice: &mut Dice) -> Option<usize> {
        let gone = dice.below(10) == 0;
        let all: Vec<_> = (0..known.len()).filter(|at| known[*at].gone == gone).collect();
        (!all.is_empty()).then(|| all[dice.below(all.len())])
    }

    fn enrolled(&self, user: &str, passkey: Passkey) {
        let names = BTreeMap::from([("device", user.to_owned()), ("terminal", String::new())]);
        let known = Known { user: user.to_owned(), passkey, names, leaving: 0, gone: false };
        lock(&self.known).push(known);
    }

    /// Runs what deletes a passkey. One that is not there any more was deleted by somebody else.
    fn leaving<T>(&self, at: usize, delete: impl FnOnce() -> Said<T>) -> Said<T> {
        lock(&self.known)[at].leaving += 1;
        let said = delete();
        let known = &mut lock(&self.known)[at];
        known.leaving -= 1;
        known.gone |= matches!(said, Said::Done(_));
        said
    }

    /// The same account again takes the old passkey's place, whoever made that.
    fn replace(&self, side: &mut dyn Side, pin: &PinNow, at: usize) -> Said<()> {
        let user = lock(&self.known)[at].user.clone();
        // Of one account's passkeys the newest is the one that is there.
        let newest = lock(&self.known).iter().rposition(|known| known.user == user).unwrap();
        let said = self.leaving(newest, || side.enroll(&pin.text, &user));
        said.map(|made| self.enrolled(&user, made))
    }

    fn change_pin(&self, side: &mut dyn Side, dice: &mut Dice) -> Said<()> {
        let old = {
            let mut pin = lock(&self.pin);
            pin.changing += 1;
            pin.text.clone()
        };
        // The device's own prompt types this one; it comes back again and again.
        let new = if old == PIN { format!("pin no {} x", dice.below(usize::MAX)) } else { PIN.to_owned() };
        let said = side.change_pin(&old, &new);
        let mut pin = lock(&self.pin);
        pin.changing -= 1;
        if let Said::Done(()) = said {
            pin.version += 1;
            pin.text = new;
        }
        said
    }

    /// Whatever was there all the time is listed, and nothing that was gone before.
    fn check_list(&self, before: &[Known], listed: &BTreeMap<Vec<u8>, String>) {
        for (before, now) in before.iter().zip(lock(&self.known).iter()) {
            let there = listed.contains_key(&before.passkey.id);
            assert!(!(before.gone && there), "{} is back", before.user);
            let stayed = !now.gone && before.leaving + now.leaving == 0;
            assert!(there || !stayed, "{} is lost", before.user);
        }
    }
}

/// `passhold`, a process for each operation.
struct Terminal<'a>(&'a Passhold);

impl Terminal<'_> {
    fn call(&self, line: &str) -> Call {
        self.0.call(line.split(' ')).under("timeout 100")
    }

    fn said(run: Run) -> Said<Run> {
        match run.code() {
            Some(0) => Said::Done(run),
            Some(5) => Said::WrongPin,
            Some(12) => Said::Busy,
            Some(13) => Said::NoPasskey,
            code => panic!("terminal: {code:?} {} {}", run.stdout, run.stderr),
        }
    }

    /// The number of a passkey, its name and its ID.
    fn all(&self) -> Said<Vec<(u64, String, Vec<u8>)>> {
        Self::said(self.call("--json list").run()).map(|run| {
            let listed = run.json();
            let of = |a: &serde_json::Value| {
                let name = a["name"].as_str().unwrap_or_default().to_owned();
                (a["id"].as_u64().unwrap(), name, base64url(&a["credentialId"]))
            };
            listed.as_array().unwrap().iter().map(of).collect()
        })
    }

    fn with_number(&self, passkey: &Passkey, run: impl FnOnce(u64) -> Said<Run>) -> Said<Run> {
        match self.all() {
            Said::Done(all) => all.iter().find(|a| a.2 == passkey.id).map_or(Said::NoPasskey, |a| run(a.0)),
            other => other.map(|_| unreachable!()),
        }
    }
}

fn base64url(text: &serde_json::Value) -> Vec<u8> {
    Base64UrlUnpadded::decode_vec(text.as_str().unwrap()).unwrap()
}

impl Side for Terminal<'_> {
    fn enroll(&mut self, pin: &str, user: &str) -> Said<Passkey> {
        let call =
            self.call(&format!("enroll --origin {ORIGIN}")).options(&creation_options(RP, user, "none"));
        let data = |run: Run| base64url(&run.json()["response"]["authenticatorData"]);
        Self::said(call.pin(pin).run()).map(|run| Passkey::of(&data(run)))
    }

    fn sign(&mut self, pin: &str, passkey: &Passkey) -> Said<()> {
        let sign = |number: u64| {
            let call = self.call(&format!("sign --origin {ORIGIN} --account {number}"));
            Self::said(call.options(&request_options(RP)).pin(pin).run())
        };
        self.with_number(passkey, sign).map(|run| {
            let response = run.json()["response"].take();
            let member = |name| base64url(&response[name]);
            let hash = Sha256::digest(member("clientDataJSON"));
            passkey.verify(&member("authenticatorData"), &hash, &member("signature"));
        })
    }

    fn rename(&mut self, _: &str, known: &Known, name: &str) -> Said<()> {
        let rename = |number| Self::said(self.call(&format!("rename {number}")).arg(name).run());
        self.with_number(&known.passkey, rename).map(drop)
    }

    fn delete(&mut self, pin: &str, passkey: &Passkey) -> Said<()> {
        let delete = |number| Self::said(self.call(&format!("delete {number}")).pin(pin).run());
        self.with_number(passkey, delete).map(drop)
    }

    fn list(&mut self, _: &str) -> Said<BTreeMap<Vec<u8>, String>> {
        self.all().map(|all| all.into_iter().map(|(_, name, id)| (id, name)).collect())
    }

    fn change_pin(&mut self, old: &str, new: &str) -> Said<()> {
        Self::said(self.call("pin change").pin(&format!("{old}\n{new}")).run()).map(drop)
    }
}

/// The device, as one browser uses it: with a token for each operation, or by the device's own prompt.
struct Browser {
    device: Device,
    site: Site,
    restarts: usize,
    prompts: usize,
}

impl Browser {
    fn new(device: Device) -> Self {
        let site = Site::connect(&device);
        Self { device, site, restarts: 0, prompts: 0 }
    }

    fn said<T>(&mut self, answer: Answer<T>) -> Said<T> {
        match answer {
            Ok(value) => Said::Done(value),
            Err(Refusal::Status(status::NO_CREDENTIALS)) => Said::NoPasskey,
            // The token's PIN, or what the prompt types, is another one by now.
            Err(Refusal::Status(
                status::PIN_INVALID
                | status::PIN_AUTH_INVALID
                | status::PUAT_REQUIRED
                | status::OPERATION_DENIED,
            )) => Said::WrongPin,
            Err(Refusal::Status(status::PIN_AUTH_BLOCKED)) => {
                self.device.restart();
                self.site = Site::connect(&self.device);
                self.restarts += 1;
                Said::WrongPin
            }
            Err(refusal) => panic!("device: {refusal:?}"),
        }
    }

    fn with_token<T>(
        &mut self,
        pin: &str,
        permissions: u8,
        run: impl FnOnce(&Site, &Token) -> Answer<T>,
    ) -> Said<T> {
        let answer = self.site.token(pin, permissions).and_then(|token| run(&self.site, &token));
        self.said(answer)
    }

    /// Every other time by the prompt, if it types the right PIN.
    fn prompts(&mut self, pin: &str) -> bool {
        self.prompts += 1;
        pin == PIN && self.prompts.is_multiple_of(2)
    }
}

impl Side for Browser {
    fn enroll(&mut self, pin: &str, user: &str) -> Said<Passkey> {
        if self.prompts(pin) {
            let made = self.site.make(None, user);
            return self.said(made);
        }
        self.with_token(pin, MAKE, |site, token| site.make(Some(token), user))
    }

    fn sign(&mut self, pin: &str, passkey: &Passkey) -> Said<()> {
        if self.prompts(pin) {
            let signed = self.site.sign_in(None, passkey);
            return self.said(signed);
        }
        self.with_token(pin, SIGN, |site, token| site.sign_in(Some(token), passkey))
    }

    fn rename(&mut self, pin: &str, known: &Known, name: &str) -> Said<()> {
        self.with_token(pin, MANAGE, |site, token| site.rename(token, &known.passkey.id, &known.user, name))
    }

    fn delete(&mut self, pin: &str, passkey: &Passkey) -> Said<()> {
        self.with_token(pin, MANAGE, |site, token| site.delete(token, &passkey.id))
    }

    fn list(&mut self, pin: &str) -> Said<BTreeMap<Vec<u8>, String>> {
        let listed = self.with_token(pin, MANAGE, |site, token| site.list(token));
        listed.map(|all| all.into_iter().map(|listed| (listed.passkey.id, listed.name)).collect())
    }

    fn change_pin(&mut self, old: &str, new: &str) -> Said<()> {
        let changed = self.site.change_pin(old, new);
        self.said(changed)
    }
}

#[test]
fn terminal_and_device_at_the_same_time_lose_no_passkey() {
    let tpm = TestTpm::start().unwrap();
    let passhold = Passhold::with_vault(&tpm);
    let mut browser = Browser::new(Device::start(&passhold.vault(), &tpm.tcti(), PIN));
    let mut terminal = Terminal(&passhold);
    let world = World {
        known: Mutex::default(),
        pin: Mutex::new(PinNow { text: PIN.to_owned(), version: 0, changing: 0 }),
        tally: Mutex::default(),
        slowest: Mutex::default(),
    };
    let (began, total, mut dice) = (Instant::now(), scale(110, 2000), Dice::new());
    let (mut one, mut other) = (dice.fork(), dice.fork());
    let begun = AtomicUsize::new(0);
    let another = || begun.fetch_add(1, Ordering::Relaxed) < total;
    thread::scope(|scope| {
        scope.spawn(|| {
            while another() {
                world.step("terminal", &mut terminal, &mut one);
            }
        });
        while another() {
            world.step("device", &mut browser, &mut other);
        }
    });
    let took = began.elapsed();

    // Both see the same passkeys under the names they gave, and each of them signs by either.
    let pin = lock(&world.pin).text.clone();
    let known = world.known.into_inner().unwrap();
    let left: Vec<_> = known.iter().filter(|known| !known.gone).collect();
    let sides: [(&str, &mut dyn Side); 2] = [("terminal", &mut terminal), ("device", &mut browser)];
    for (name, side) in sides {
        let expected =
            left.iter().map(|known| (known.passkey.id.clone(), known.names[name].clone())).collect();
        let Said::Done(listed) = side.list(&pin) else { panic!("{name} does not list") };
        assert_eq!(listed, expected, "{name}");
        for known in &left {
            let said = side.sign(&pin, &known.passkey);
            assert!(matches!(said, Said::Done(())), "{name}: {}: {said:?}", known.user);
        }
    }
    let restarts = browser.restarts;
    browser.device.stop();
    assert_eq!(Wire::new(tpm.port()).loaded(), [0_u32; 0], "loaded in the TPM");
    let changes = lock(&world.pin).version;
    let (slowest, tally) = (*lock(&world.slowest), world.tally.into_inner().unwrap());
    println!(
        "terminal and device: {} operations in {took:?}, the slowest {slowest:?}, {changes} PIN changes, {restarts} restarts; \
         {} passkeys made, {} left, all sign by either",
        total,
        known.len(),
        left.len(),
    );
    println!("{tally:#?}");
}

#[test]
fn a_device_in_constant_use_does_not_lock_the_terminal_out() {
    let tpm = TestTpm::start().unwrap();
    let passhold = Passhold::with_vault(&tpm);
    let device = Device::start(&passhold.vault(), &tpm.tcti(), PIN);
    let site = Site::connect(&device);
    let token = site.token(PIN, MANAGE).unwrap();
    let over = AtomicUsize::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            while over.load(Ordering::Relaxed) == 0 {
                site.list(&token).unwrap();
                thread::sleep(Duration::from_millis(20));
            }
        });
        let began = Instant::now();
        let runs: Vec<_> = (0..3).map(|_| passhold.call(["list"]).run().code()).collect();
        over.store(1, Ordering::Relaxed);
        println!("listed {runs:?} in {:?}", began.elapsed());
        assert_eq!(runs, [Some(0); 3]);
    });
    device.stop();
}
