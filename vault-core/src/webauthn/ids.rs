use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use url::{Host, Url};

use super::base64url;
use crate::printable;

/// The origin that asks: `https://…`, or `http://localhost…` for development.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    serialized: String,
    domain: String,
}

/// Why an origin cannot use passkeys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OriginError {
    /// It is not a URL, or has a path, a query, a user name.
    #[error("{0:?} is not an origin such as https://example.org")]
    NotAnOrigin(String),
    /// Neither https nor http on localhost (WebAuthn Level 3 §5.1.3: a secure context).
    #[error("{0:?} is neither https nor http://localhost")]
    NotSecure(String),
    /// An IP address has no relying party ID (§5.1.3 step 7: the effective domain must be a domain).
    #[error("{0:?} has an address where a domain is needed")]
    NotADomain(String),
}

impl Origin {
    /// Reads an origin as `scheme://domain[:port]`; a trailing slash is forgiven.
    pub fn parse(text: &str) -> Result<Self, OriginError> {
        let not_an_origin = || OriginError::NotAnOrigin(text.to_owned());
        let url = Url::parse(text).map_err(|_| not_an_origin())?;
        let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        if !bare || !url.username().is_empty() || url.password().is_some() {
            return Err(not_an_origin());
        }
        let domain = match url.host() {
            Some(Host::Domain(domain)) if !domain.ends_with('.') => domain.to_owned(),
            Some(Host::Domain(_)) | None => return Err(not_an_origin()),
            Some(_) => return Err(OriginError::NotADomain(text.to_owned())),
        };
        let local = domain == "localhost" || domain.ends_with(".localhost");
        match url.scheme() {
            "https" => {}
            "http" if local => {}
            _ => return Err(OriginError::NotSecure(text.to_owned())),
        }
        Ok(Self { serialized: url.origin().ascii_serialization(), domain })
    }

    pub(crate) fn domain(&self) -> &str {
        &self.domain
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.serialized)
    }
}

/// A relying party ID: the domain whose passkeys these are.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RpId(String);

/// Why an origin may not use a relying party ID (HTML, "is a registrable domain suffix of or is equal to").
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RpIdError {
    /// Neither the origin's domain nor a suffix of it.
    #[error("the relying party ID {rp_id:?} does not belong to {origin}")]
    Foreign {
        /// What the options say.
        rp_id: String,
        /// Who asks.
        origin: String,
    },
    /// A suffix under which anyone can register.
    #[error("the relying party ID {rp_id:?} is a public suffix; every site under it could use the passkey")]
    PublicSuffix {
        /// What the options say.
        rp_id: String,
    },
}

impl RpId {
    /// The relying party ID that `options` names, or the origin's domain, if `origin` may use it.
    pub fn for_origin(options: Option<&str>, origin: &Origin) -> Result<Self, RpIdError> {
        let domain = origin.domain();
        let rp_id = options.unwrap_or(domain);
        if rp_id == domain {
            return Ok(Self(domain.to_owned()));
        }
        let is_suffix = domain.strip_suffix(rp_id).is_some_and(|sub| sub.ends_with('.'));
        if rp_id.is_empty() || !is_suffix {
            return Err(RpIdError::Foreign { rp_id: rp_id.to_owned(), origin: origin.to_string() });
        }
        // The second: below a.b.c there can be a suffix although a.b.c is none itself (compute.amazonaws.com).
        let is_public = psl::suffix_str(rp_id) == Some(rp_id);
        let is_above_public = psl::suffix_str(domain).is_some_and(|suffix| suffix.len() >= rp_id.len());
        if is_public || is_above_public {
            return Err(RpIdError::PublicSuffix { rp_id: rp_id.to_owned() });
        }
        Ok(Self(rp_id.to_owned()))
    }

    /// One that a platform vouches for: it knows the origin, and CTAP does not (CTAP 2.2 §6.1, `rp`). `None` if it is empty or
    /// longer than 255 bytes, which no domain is, or would rewrite the line it is shown in.
    #[must_use]
    pub fn vouched_for(rp_id: String) -> Option<Self> {
        let fits = (1..=255).contains(&rp_id.len()) && printable(&rp_id) == rp_id;
        fits.then_some(Self(rp_id))
    }

    /// As text, for display.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its SHA-256 hash, by which authenticator data names it.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(&self.0).into()
    }
}

impl fmt::Display for RpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A credential ID: 32 random bytes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialId(#[serde(with = "serde_bytes")] Vec<u8>);

impl CredentialId {
    /// A new one.
    pub fn random(rng: &mut dyn rand_core::CryptoRng) -> Self {
        let mut bytes = vec![0; 32];
        rng.fill_bytes(&mut bytes);
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for CredentialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base64url(&self.0))
    }
}

impl fmt::Debug for CredentialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CredentialId({self})")
    }
}

/// A user handle: 1 to 64 bytes that name an account to its relying party (WebAuthn Level 3 §5.4.3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserHandle(#[serde(with = "serde_bytes")] Vec<u8>);

impl fmt::Display for UserHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base64url(&self.0))
    }
}

impl UserHandle {
    /// `None` if it is empty or longer than 64 bytes.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Option<Self> {
        (1..=64).contains(&bytes.len()).then_some(Self(bytes))
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn rp_id(origin: &str, rp_id: Option<&str>) -> Result<String, RpIdError> {
        RpId::for_origin(rp_id, &Origin::parse(origin).unwrap()).map(|id| id.0)
    }

    #[test]
    fn origins_that_are_not_secure_contexts_are_refused() {
        for text in ["http://example.org", "ftp://localhost", "ws://localhost"] {
            assert_eq!(Origin::parse(text), Err(OriginError::NotSecure(text.into())));
        }
    }

    #[test]
    fn what_is_not_an_origin_is_refused() {
        let texts = [
            "",
            "example.org",
            "https://",
            "https://a.org/x",
            "https://a.org?x",
            "https://u@a.org",
            "https://a.org.",
        ];
        for text in texts {
            assert_eq!(Origin::parse(text), Err(OriginError::NotAnOrigin(text.into())), "{text}");
        }
    }

    #[test]
    fn addresses_have_no_rp_id() {
        for text in ["https://192.0.2.1", "https://[2001:db8::1]", "http://127.0.0.1:8080"] {
            assert_eq!(Origin::parse(text), Err(OriginError::NotADomain(text.into())));
        }
    }

    #[test]
    fn origins_are_serialized_as_browsers_do() {
        let serialized = |text| Origin::parse(text).unwrap().to_string();
        assert_eq!(serialized("https://Example.ORG:443/"), "https://example.org");
        assert_eq!(serialized("https://login.example.org:8443"), "https://login.example.org:8443");
        assert_eq!(serialized("http://localhost:8080"), "http://localhost:8080");
        assert_eq!(serialized("https://bücher.example"), "https://xn--bcher-kva.example");
    }

    #[test]
    fn an_rp_id_must_belong_to_the_origin() {
        for (origin, id) in [
            ("https://example.org", "example.com"),
            ("https://example.org", "login.example.org"),
            ("https://notexample.org", "example.org"),
            ("https://example.org", ""),
            ("https://example.org", "rg"),
            ("https://a.example.org", ".example.org"),
            ("https://a.example.org", "Example.org"),
        ] {
            assert!(matches!(rp_id(origin, Some(id)), Err(RpIdError::Foreign { .. })), "{origin} {id}");
        }
    }

    #[test]
    fn a_public_suffix_is_refused_unless_it_is_the_origin_itself() {
        for (origin, id) in [
            ("https://example.org", "org"),
            ("https://shop.example.co.uk", "co.uk"),
            ("https://alice.github.io", "github.io"),
            ("https://host.internal", "internal"),
            ("http://app.localhost", "localhost"),
            // The standard's own table.
            ("https://www.example.compute.amazonaws.com", "amazonaws.com"),
            ("https://www.example.compute.amazonaws.com", "compute.amazonaws.com"),
            ("https://evil.s3.amazonaws.com", "amazonaws.com"),
            ("https://evil.blob.core.windows.net", "windows.net"),
            ("https://evil.blob.core.windows.net", "core.windows.net"),
            ("https://www.xn--gmq050i.hk", "xn--gmq050i.hk"),
        ] {
            assert_eq!(rp_id(origin, Some(id)), Err(RpIdError::PublicSuffix { rp_id: id.into() }));
        }
        assert_eq!(rp_id("https://github.io", None), Ok("github.io".into()));
    }

    #[test]
    fn registrable_suffixes_and_the_domain_itself_are_accepted() {
        assert_eq!(rp_id("https://login.example.co.uk", Some("example.co.uk")), Ok("example.co.uk".into()));
        assert_eq!(rp_id("https://www.amazonaws.com", Some("amazonaws.com")), Ok("amazonaws.com".into()));
        assert_eq!(rp_id("https://login.example.org", None), Ok("login.example.org".into()));
        assert_eq!(rp_id("http://localhost:8080", Some("localhost")), Ok("localhost".into()));
    }
}
