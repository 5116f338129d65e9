use std::{ops::BitOr, rc::Rc, time::Duration};

use vault_core::{
    Secret,
    pin::PinSecrets,
    secret_from,
    webauthn::{RpId, UserPresent},
};

use crate::{Status, pin_protocol::PinProtocol};

/// What a pinUvAuthToken is good for (CTAP 2.2 §6.5.5.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permissions(u8);

/// §6.5.2.1: how long a token may wait for its first use, be used at all, and vouch for a person's presence.
const FIRST_USE: Duration = Duration::from_secs(30);
const LIFETIME: Duration = Duration::from_secs(600);
const PRESENCE: Duration = Duration::from_secs(30);

/// A token in use (§6.5.2.1), and with it what proves the PIN to the TPM: neither outlives the other.
pub(crate) struct Token {
    pub(crate) protocol: PinProtocol,
    pub(crate) value: Secret,
    pub(crate) unlock: Rc<PinSecrets>,
    permissions: Permissions,
    rp_id: Option<RpId>,
    present: Option<UserPresent>,
    present_until: Duration,
    expires: Duration,
    unused: bool,
    first_use_until: Duration,
}

impl Permissions {
    /// Making credentials.
    pub const MAKE_CREDENTIAL: Self = Self(0x01);
    /// Signing in.
    pub const GET_ASSERTION: Self = Self(0x02);
    /// Listing, renaming and deleting credentials.
    pub const MANAGE_CREDENTIALS: Self = Self(0x04);
    /// Writing large blobs.
    pub const WRITE_LARGE_BLOBS: Self = Self(0x10);
    /// Configuring the authenticator.
    pub const CONFIGURE: Self = Self(0x20);
    /// Listing credentials, until the PIN is changed. It is granted alone: its token is another.
    pub const LIST_CREDENTIALS: Self = Self(0x40);
    /// What this authenticator can grant at once.
    const SUPPORTED: Self = Self(0x37);
    /// What the specification defines: of these, managing fingerprints (0x08) is not had here.
    const DEFINED: Self = Self(0x7f);

    /// §6.5.5.7.2 and §6.5.5.7.3, their steps 3 and 4: 0 is an error, and so is what this authenticator cannot do. What no
    /// specification has defined yet is ignored.
    pub(crate) fn from_number(number: u64) -> Result<Self, Status> {
        if number == 0 {
            return Err(Status::InvalidParameter);
        }
        let [bits, ..] = number.to_le_bytes();
        let defined = Self(bits & Self::DEFINED.0);
        if Self::SUPPORTED.contain(defined) || defined == Self::LIST_CREDENTIALS {
            Ok(defined)
        } else {
            Err(Status::UnauthorizedPermission)
        }
    }

    /// Whether all of `other` is in it.
    #[must_use]
    pub fn contain(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Those that are for one relying party.
    pub(crate) fn need_rp_id(self) -> bool {
        self.0 & (Self::MAKE_CREDENTIAL | Self::GET_ASSERTION).0 != 0
    }
}

impl BitOr for Permissions {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl Token {
    /// `beginUsingPinUvAuthToken` (§6.5.2.1). `present` if the person was there when the PIN was proven.
    pub(crate) fn begin(
        protocol: PinProtocol,
        unlock: Rc<PinSecrets>,
        (permissions, rp_id): (Permissions, Option<RpId>),
        present: Option<UserPresent>,
        now: Duration,
        rng: &mut dyn rand_core::CryptoRng,
    ) -> Self {
        Self {
            protocol,
            value: secret_from(|out| rng.fill_bytes(out)),
            unlock,
            permissions,
            rp_id,
            present,
            present_until: now + PRESENCE,
            expires: now + LIFETIME,
            unused: true,
            first_use_until: now + FIRST_USE,
        }
    }

    /// When it ends unless it is used before.
    pub(crate) fn deadline(&self) -> Duration {
        if self.unused { self.first_use_until.min(self.expires) } else { self.expires }
    }

    /// Whether it allows to manage the credentials of `rp_id`, or all of them (§6.8: then it must not be bound to one).
    pub(crate) fn use_to_manage(&mut self, rp_id: Option<&RpId>) -> Result<(), Status> {
        let allowed = match (&self.rp_id, rp_id) {
            (None, _) => true,
            (Some(bound), Some(rp_id)) => bound == rp_id,
            (Some(_), None) => false,
        };
        if !allowed || !self.manages() {
            return Err(Status::PinAuthInvalid);
        }
        self.unused = false;
        Ok(())
    }

    /// Whether it allows to manage any credentials.
    pub(crate) fn manages(&self) -> bool {
        self.permissions.contain(Permissions::MANAGE_CREDENTIALS)
    }

    /// Whether it allows what is of no relying party (§6.10.2, §6.11).
    pub(crate) fn use_to(&mut self, permission: Permissions) -> Result<(), Status> {
        if !self.permissions.contain(permission) {
            return Err(Status::PinAuthInvalid);
        }
        self.unused = false;
        Ok(())
    }

    /// Whether it allows `permission` for `rp_id`, to which it is bound from then on (§6.1.2 step 11.1, §6.2.2 step 6.1).
    pub(crate) fn use_for(&mut self, permission: Permissions, rp_id: &RpId) -> Result<(), Status> {
        let bound_elsewhere = self.rp_id.as_ref().is_some_and(|bound| bound != rp_id);
        if !self.permissions.contain(permission) || bound_elsewhere {
            return Err(Status::PinAuthInvalid);
        }
        self.rp_id.get_or_insert_with(|| rp_id.clone());
        self.unused = false;
        Ok(())
    }

    /// `clearPinUvAuthTokenPermissionsExceptLbw` (§6.5.2.1); `None` if nothing is left of it.
    pub(crate) fn after_presence(self) -> Option<Self> {
        let permissions = Permissions::WRITE_LARGE_BLOBS;
        self.permissions.contain(permissions).then_some(Self { permissions, present: None, ..self })
    }

    /// `getUserPresentFlagValue` (§6.5.2.1); whoever asks spends it.
    pub(crate) fn take_presence(&mut self, now: Duration) -> Option<UserPresent> {
        self.present.take().filter(|_| now < self.present_until)
    }
}
