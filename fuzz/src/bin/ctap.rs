//! Every CTAP command: the input is requests, each with two bytes of length before it. There is a vault or none, and it cannot be
//! opened, so all that parses comes to a status; what it may allocate is bounded.
#![no_main]

use std::time::Duration;

use ctap::{Ask, Authenticator, Declined, Env, Person, Vaults};
use getrandom::{SysRng, rand_core::UnwrapErr};
use libfuzzer_sys::fuzz_target;
use vault_core::{
    OpenError, TriesLeft, Vault, VaultError,
    container::{Account, ContainerError},
    keystore::{KeyStoreError, TpmKind},
    pin::{Pin, PinMaterial, PinPolicy},
    webauthn::UserPresent,
};

struct Unopenable(bool);

impl Vaults for Unopenable {
    fn exist(&self) -> bool {
        self.0
    }

    fn open(&mut self) -> Result<Vault<'_>, OpenError> {
        Err(OpenError::Container(ContainerError::NotFound { dir: "/".into() }))
    }

    fn set_up(&mut self, _: &PinMaterial) -> Result<(), VaultError> {
        Ok(())
    }

    fn wipe(&mut self) -> Result<(), VaultError> {
        Ok(())
    }

    fn kind(&mut self) -> Result<TpmKind, KeyStoreError> {
        Ok(TpmKind::Software)
    }
}

struct Willing;

impl Person for Willing {
    fn confirm(&mut self, _: &Ask<'_>) -> Result<UserPresent, Declined> {
        Ok(UserPresent::confirmed())
    }

    fn choose(&mut self, _: &[&Account]) -> Result<(usize, UserPresent), Declined> {
        Ok((0, UserPresent::confirmed()))
    }

    fn pin(&mut self, _: &Ask<'_>, _: Option<TriesLeft>) -> Result<(Pin, UserPresent), Declined> {
        Pin::new("493817").map(|pin| (pin, UserPresent::confirmed())).ok_or(Declined::No)
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((first, mut rest)) = input.split_first() else { return };
    let mut rng = UnwrapErr(SysRng);
    let mut authenticator = Authenticator::new(PinPolicy::default(), &mut rng);
    let mut vaults = Unopenable(first & 1 == 1);
    let mut now = Duration::ZERO;
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let (request, after) = after.split_at(after.len().min(usize::from(u16::from_le_bytes(*length))));
        rest = after;
        now += Duration::from_secs(1);
        let mut env = Env {
            vaults: &mut vaults,
            person: &mut Willing,
            rng: &mut rng,
            clock: &|| now,
            unix_time: 0,
            report: &|_| {},
        };
        let reply = fuzz::bounded(request, || authenticator.answer(request, &mut env));
        let (status, value) = reply.split_first().expect("a status");
        if !value.is_empty() {
            assert_eq!(*status, 0);
            let value: ciborium::Value = ciborium::from_reader(value).expect("CBOR");
            assert!(value.is_map());
        }
    }
});
