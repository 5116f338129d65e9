//! Passhold's story: the real `passhold` and `passholdd` on an embedded software TPM, with a relying party's own library
//! that judges what comes out. Leaves nothing behind.

mod passhold;

use std::{
    error::Error,
    fs,
    path::Path,
    process::{Command, ExitCode},
    time::Instant,
};

use passhold::{Passhold, Ran};
use relying_party::RelyingParty;
use serde_json::Value;
use swtpm_tests::{Device, TestTpm, proxy::Proxy};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const PIN: &str = "271828";
const NEW_PIN: &str = "161803";
const SITES: [(&str, &str); 2] =
    [("https://mail.example.org", "alice"), ("https://bank.example.com", "a.liddell")];

fn main() -> ExitCode {
    match tell() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            say(&format!("\nThe demo failed: {e}"));
            ExitCode::FAILURE
        }
    }
}

fn tell() -> Result<()> {
    let tpm = TestTpm::start()?;
    let proxy = Proxy::start(tpm.port())?;
    let folder = tempfile::tempdir()?;
    let vault = folder.path().join("vault");
    let passhold = Passhold::new(&vault, &proxy, folder.path())?;
    let mut sites = Vec::new();
    for (origin, user) in SITES {
        sites.push((RelyingParty::new(origin)?, origin, user));
    }
    say(
        "Passhold keeps passkeys in this machine's TPM. Here the TPM is a program (swtpm), everything else is real.",
    );

    say("\n1. Set-up: the TPM makes a vault key that never leaves it, and an index that counts wrong PINs.");
    report(&passhold.run(&["setup"], &[PIN])?.succeeded()?);

    say("\n2. Two accounts at two sites. Each site's own library (webauthn-rs) checks the new passkey.");
    for (site, origin, user) in &mut sites {
        let made =
            ceremony(&passhold, folder.path(), "enroll", origin, &site.start_registration(user)?, PIN)?;
        let made = made.succeeded()?;
        site.finish_registration(user, &made.json()?)?;
        say(&format!("   {origin} accepts {user}'s passkey."));
        report(&made);
    }

    say("\n3. A sign-in to each: the TPM checks the PIN and signs; the site checks the signature.");
    for (site, origin, user) in &mut sites {
        sign_in(&passhold, folder.path(), site, origin, user, PIN)?;
    }

    say("\n4. A wrong PIN: the TPM refuses and counts.");
    let Some((site, origin, user)) = sites.first_mut() else { return Err("no sites".into()) };
    let refused = ceremony(&passhold, folder.path(), "sign", origin, &site.start_login(user)?, "999333")?;
    say(&format!("   passhold says: {}", refused.refused_with(5)?));
    report(&refused);

    say("\n5. A PIN change: one command at the TPM, however many passkeys there are.");
    report(&passhold.run(&["pin", "change"], &[PIN, NEW_PIN])?.succeeded()?);
    sign_in(&passhold, folder.path(), site, origin, user, NEW_PIN)?;

    say("\n6. A wipe, after a copy of the vault's file was put aside.");
    let file = vault.join("vault.db");
    let copy = fs::read(&file)?;
    report(&passhold.run(&["wipe", "--yes"], &[])?.succeeded()?);
    fs::write(&file, copy)?;
    let dead = ceremony(&passhold, folder.path(), "sign", origin, &site.start_login(user)?, NEW_PIN)?;
    say(&format!("   The copy and the right PIN: {}", dead.refused_with(9)?));
    report(&dead);

    say(
        "\n7. The device: passholdd shows what browsers and OpenSSH see as a security key. The vault is gone, so it has no PIN.",
    );
    passhold.run(&["wipe", "--yes"], &[])?;
    device(&vault, &proxy, folder.path())?;

    drop(proxy);
    drop(tpm);
    folder.close()?;
    say("\nThat was all. Nothing is left behind: the TPM, its state and the vault were temporary.");
    Ok(())
}

/// A program that somebody else's library does the work of. Setting a PIN makes the vault.
fn device(vault: &Path, proxy: &Proxy, folder: &Path) -> Result<()> {
    let program = folder.join("device");
    build_with_libfido2(&program)?;
    let device = Device::start(vault, &proxy.tcti(), PIN);
    proxy.clear_record();
    let started = Instant::now();
    let output = Command::new(&program).arg(device.socket()).arg(PIN).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    say("   libfido2 sets one, which makes a new vault; registers; signs in; and verifies both.");
    say(&format!("   {} ms, {} TPM commands", started.elapsed().as_millis(), proxy.codes().len()));
    device.stop();
    Ok(())
}

fn build_with_libfido2(program: &Path) -> Result<()> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let flags = Command::new("pkg-config").args(["--cflags", "--libs", "libfido2"]).output()?;
    let built = Command::new("cc")
        .arg("-I")
        .arg(here.join("../../swtpm-tests/clients"))
        .arg("-o")
        .arg(program)
        .arg(here.join("device.c"))
        .args(String::from_utf8(flags.stdout)?.split_whitespace())
        .status()?;
    if built.success() { Ok(()) } else { Err("device.c does not compile; is libfido2-dev there?".into()) }
}

fn sign_in(
    passhold: &Passhold<'_>,
    folder: &Path,
    site: &mut RelyingParty,
    origin: &str,
    user: &str,
    pin: &str,
) -> Result<()> {
    let signed = ceremony(passhold, folder, "sign", origin, &site.start_login(user)?, pin)?.succeeded()?;
    site.finish_login(user, &signed.json()?)?;
    say(&format!("   {origin} lets {user} in."));
    report(&signed);
    Ok(())
}

fn ceremony(
    passhold: &Passhold<'_>,
    folder: &Path,
    verb: &str,
    origin: &str,
    options: &Value,
    pin: &str,
) -> Result<Ran> {
    let file = folder.join("options.json");
    fs::write(&file, options.to_string())?;
    let file = file.to_str().ok_or("the temporary folder's name is not UTF-8")?;
    passhold.run(&[verb, "--origin", origin, "--options", file], &[pin])
}

fn report(ran: &Ran) {
    say(&format!("   {} ms, {} TPM commands", ran.took.as_millis(), ran.commands));
}

#[expect(clippy::print_stdout, reason = "telling is what a demo does")]
fn say(text: &str) {
    println!("{text}");
}
