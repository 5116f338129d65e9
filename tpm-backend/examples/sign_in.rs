//! Opens a TPM, makes a vault, enrols and signs. Here on a software TPM; give a TCTI string for another.

use tpm_backend::{Tpm, swtpm::Swtpm};
use vault_core::{
    Vault,
    pin::PinPolicy,
    webauthn::{CreateRequest, GetRequest, Origin, UserPresent},
};

#[expect(clippy::print_stdout, reason = "an example shows what it made")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let swtpm = Swtpm::start(&folder.path().join("swtpm"))?;
    let mut tpm = Tpm::new(std::env::args().nth(1).unwrap_or(swtpm.tcti()).parse()?);
    let mut rng = getrandom::rand_core::UnwrapErr(getrandom::SysRng);
    let pin = PinPolicy::default().accept("271828")?.material();

    vault_core::setup(folder.path(), &mut tpm, &pin, 0, &mut rng)?;
    let mut vault = Vault::open(folder.path(), &mut tpm)?;

    let options = r#"{"rp": {"name": "Example"}, "challenge": "MTIzNDU2Nzg5MDEyMzQ1Ng", "pubKeyCredParams": [],
        "user": {"id": "YWxpY2U", "name": "alice", "displayName": "Alice"}}"#;
    let request = CreateRequest::from_json(options, Origin::parse("https://example.org")?)?;
    let (id, made) = vault.unlock(&pin)?.enroll(&request, None, UserPresent::confirmed(), 0, &mut rng)?;
    println!("{}", serde_json::to_string_pretty(&made)?);

    let options = r#"{"challenge": "NjU0MzIxMDk4NzY1NDMyMQ"}"#;
    let request = GetRequest::from_json(options, Origin::parse("https://example.org")?)?;
    let signed = vault.unlock(&pin)?.sign(&request, id, UserPresent::confirmed(), 0, &mut rng)?;
    println!("{}", serde_json::to_string_pretty(&signed)?);
    Ok(())
}
