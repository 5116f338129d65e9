use crate::{Ask, Authenticator, Env, failure::Result, pin_protocol::KeyAgreement};

/// authenticatorReset (CTAP 2.2 §6.6): a wipe. We have a display, so the person sees what will be lost, and there is no limit
/// of ten seconds after the start.
pub(crate) fn run(authenticator: &mut Authenticator, env: &mut Env<'_>) -> Result<()> {
    if !env.vaults.exist() {
        env.confirm(&Ask::Reset { passkeys: Some(0) })?;
        return Ok(());
    }
    // A vault that cannot be opened can still be destroyed.
    let passkeys = env.vaults.open().ok().and_then(|vault| vault.accounts().ok()).map(|all| all.len());
    env.confirm(&Ask::Reset { passkeys })?;
    env.vaults.wipe()?;
    authenticator.lock();
    authenticator.agreement = KeyAgreement::generate(env.rng);
    authenticator.pin_was_right();
    Ok(())
}
