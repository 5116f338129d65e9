//! What a TPM says of itself.

use std::time::Duration;

use tss_esapi::{
    constants::{CapabilityType, PropertyTag, response_code::Tss2ResponseCodeKind as Code},
    interface_types::{resource_handles::NvAuth, session_handles::AuthSession},
    structures::{Auth, CapabilityData},
};
use vault_core::keystore::{Lockout, TpmKind, TpmStatus, WrongPins};

use crate::{
    connection::{Connection, Route},
    error::{During, Result, code, failed, odd_answer},
    link::Link,
    srk,
};

/// A TPM's fixed and changing properties (`TPM_PT`, Part 2 §6.13).
pub(crate) struct About {
    pub(crate) kind: TpmKind,
    pub(crate) simulated: bool,
    pub(crate) model: String,
    pub(crate) lockout: Lockout,
    /// Whether it knows PIN FAIL indices: specification 1.38 or later.
    pub(crate) counts_pins: bool,
}

/// What the TPM says of itself and, on a vault's link, of that vault.
pub(crate) fn status(link: &mut Link, owner_auth: Option<&Auth>) -> Result<TpmStatus> {
    let about = describe(&mut link.tpm)?;
    Ok(TpmStatus { wrong_pins: wrong_pins(link, owner_auth)?, ..about.into() })
}

impl From<About> for TpmStatus {
    fn from(About { kind, simulated, model, lockout, .. }: About) -> Self {
        Self { kind, simulated, model, wrong_pins: None, lockout }
    }
}

pub(crate) fn describe(tpm: &mut Connection) -> Result<About> {
    let fixed = properties(tpm, PropertyTag::FamilyIndicator)?;
    Ok(about(&fixed, &properties(tpm, PropertyTag::Permanent)?))
}

/// By what never changes, and by what does.
pub(crate) fn about(fixed: &[(u32, u32)], changing: &[(u32, u32)]) -> About {
    let (maker, vendor) = (
        text(fixed, &[PropertyTag::Manufacturer]),
        text(
            fixed,
            &[
                PropertyTag::VendorString1,
                PropertyTag::VendorString2,
                PropertyTag::VendorString3,
                PropertyTag::VendorString4,
            ],
        ),
    );
    About {
        kind: kind(&maker),
        simulated: SIMULATORS.contains(&maker.as_str()),
        model: format!("{maker} {vendor}").trim().to_owned(),
        lockout: lockout(changing),
        counts_pins: value(fixed, PropertyTag::Revision) >= 138,
    }
}

/// Whether the TPM has room for what an operation holds at a time: two objects (a persistent key takes a place while
/// it is used) and two sessions.
pub(crate) fn has_room(changing: &[(u32, u32)]) -> bool {
    let left = [PropertyTag::HrTransientAvail, PropertyTag::HrLoadedAvail, PropertyTag::HrActiveAvail];
    left.iter().all(|tag| value(changing, *tag) >= 2)
}

/// How long until a TPM in lockout allows one more try, if it tells.
pub(crate) fn lockout_recovery(route: &Route) -> Option<Duration> {
    let mut tpm = route.connect().ok()?;
    properties(&mut tpm, PropertyTag::Permanent).ok().map(|changing| lockout(&changing).recovery)
}

fn lockout(changing: &[(u32, u32)]) -> Lockout {
    Lockout {
        counter: value(changing, PropertyTag::LockoutCounter),
        limit: value(changing, PropertyTag::MaxAuthFail),
        recovery: Duration::from_secs(value(changing, PropertyTag::LockoutInterval).into()),
    }
}

/// Who makes programs and no chips: libtpms, which swtpm is made of, and Microsoft's reference code.
const SIMULATORS: [&str; 2] = ["IBM", "MSFT"];

/// By the manufacturer's id (TCG Vendor ID Registry §2). Whoever is not known is taken for software, so that
/// no test key passes for one in hardware.
fn kind(maker: &str) -> TpmKind {
    match maker {
        "INTC" | "AMD" | "QCOM" | "HISI" | "SMSN" => TpmKind::Firmware,
        "IFX" | "STM" | "NTC" | "ATML" | "NSM" | "WEC" | "SMSC" | "TXN" | "NSG" | "SECE" => TpmKind::Discrete,
        _ => TpmKind::Software,
    }
}

/// The count, read as the owner in a password session. `None` where the owner's authorization is set and
/// was not given; a failure there costs nothing, the owner is exempt from dictionary-attack protection.
fn wrong_pins(link: &mut Link, owner_auth: Option<&Auth>) -> Result<Option<WrongPins>> {
    let (pin, size) = (link.pin_index()?, link.place.pin.size);
    srk::set_owner_auth(&mut link.tpm, owner_auth)?;
    let read = link
        .tpm
        .execute_with_session(Some(AuthSession::Password), |c| c.nv_read(NvAuth::Owner, pin, size, 0));
    let data = match read {
        Ok(data) => data,
        Err(e) if matches!(code(e), Some(Code::BadAuth | Code::AuthFail)) => return Ok(None),
        Err(e) => return Err(failed("reading the count of wrong PINs", e)),
    };
    let odd = || odd_answer("reading the count of wrong PINs");
    let (words, []) = data.value().as_chunks::<4>() else { return Err(odd()) };
    let [count, limit] = words else { return Err(odd()) };
    Ok(Some(WrongPins { count: u32::from_be_bytes(*count), limit: u32::from_be_bytes(*limit) }))
}

/// The group of properties that starts with `first`, as (tag, value).
pub(crate) fn properties(tpm: &mut Connection, first: PropertyTag) -> Result<Vec<(u32, u32)>> {
    let step = "asking the TPM about itself";
    let (data, _) = tpm
        .execute_without_session(|c| c.get_capability(CapabilityType::TpmProperties, first.into(), 128))
        .during(step)?;
    let CapabilityData::TpmProperties(list) = data else {
        return Err(odd_answer(step));
    };
    Ok(list.into_iter().map(|p| (u32::from(p.property()), p.value())).collect())
}

pub(crate) fn value(properties: &[(u32, u32)], tag: PropertyTag) -> u32 {
    properties.iter().find(|(t, _)| *t == u32::from(tag)).map_or(0, |(_, value)| *value)
}

/// Four characters a property, padded with zeros or spaces.
fn text(properties: &[(u32, u32)], tags: &[PropertyTag]) -> String {
    let bytes = tags.iter().flat_map(|tag| value(properties, *tag).to_be_bytes());
    let text: String = bytes.filter(|b| (0x20..0x7f).contains(b)).map(char::from).collect();
    text.trim().to_owned()
}
