//! The person's rules for new passkeys.

use std::fmt;

use glob::Pattern;
use serde::{Deserialize, Serialize};
use url::Host;

use crate::{CeremonyError, printable, webauthn::RpId};

/// What a rule does where a new passkey is asked for.
// The most restrictive one is the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuleAction {
    /// The person is asked, and told that a rule asks.
    Ask,
    /// There is none.
    Never,
}

/// A rule for the relying parties whose IDs a glob matches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// What it does.
    pub action: RuleAction,
    /// For whom: `*` stands for any text, dots too, `?` for a character, `[…]` for one of several.
    pub glob: String,
}

/// The rules of a vault, oldest first. Where several match, the most restrictive one counts, so that their order does not
/// matter and no rule can be undone by adding another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules(Vec<Rule>);

/// Why a rule is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RuleError {
    /// No relying party ID could match it.
    #[error("{0:?} is no glob for relying party IDs")]
    NotAGlob(String),
    /// It is too long for an RP ID.
    #[error("a glob has at most {} bytes", Rules::LONGEST)]
    TooLong,
    /// There are too many.
    #[error("a vault has at most {} rules", Rules::MOST)]
    TooMany,
}

impl RuleAction {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ask => "ask",
            Self::Never => "never",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.action.as_str(), self.glob)
    }
}

impl Rules {
    /// As many may there be.
    pub const MOST: usize = 50;
    /// The longest glob, in bytes: as long as a domain's name.
    pub const LONGEST: usize = 255;

    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[Rule] {
        &self.0
    }

    /// Adds a rule, in the place of one with the same glob.
    pub fn add(&mut self, action: RuleAction, glob: &str) -> Result<Rule, RuleError> {
        let glob = canonical_glob(glob).ok_or_else(|| RuleError::NotAGlob(glob.to_owned()))?;
        if glob.len() > Self::LONGEST {
            return Err(RuleError::TooLong);
        }
        self.remove(&glob);
        if self.0.len() == Self::MOST {
            return Err(RuleError::TooMany);
        }
        let rule = Rule { action, glob };
        self.0.push(rule.clone());
        Ok(rule)
    }

    /// Takes a rule away, if there is one with this glob.
    pub fn remove(&mut self, glob: &str) -> Option<Rule> {
        let glob = canonical_glob(glob)?;
        let at = self.0.iter().position(|rule| rule.glob == glob)?;
        Some(self.0.remove(at))
    }

    /// Refuses new passkeys where they are never wanted. `Some` is a rule that has the person asked.
    pub fn allow(&self, rp_id: &RpId) -> Result<Option<&Rule>, CeremonyError> {
        match self.on(rp_id) {
            Some(rule) if rule.action == RuleAction::Never => Err(CeremonyError::ByRule(rule.clone())),
            rule => Ok(rule),
        }
    }

    /// The rule that counts for new passkeys of this relying party.
    #[must_use]
    pub fn on(&self, rp_id: &RpId) -> Option<&Rule> {
        // Browsers send domains as they are compared. Other platforms need not.
        let label = |label: &str| canonical(label).unwrap_or_else(|| label.to_lowercase());
        let rp_id = rp_id.as_str().split('.').map(label).collect::<Vec<_>>().join(".");
        let matches = |rule: &&Rule| Pattern::new(&rule.glob).is_ok_and(|glob| glob.matches(&rp_id));
        self.0.iter().filter(matches).max_by_key(|rule| rule.action)
    }
}

/// A glob as it is kept; `None` if no RP ID could match it.
fn canonical_glob(glob: &str) -> Option<String> {
    // Of a URL, only the host is in an RP ID; and a rule is shown in lines of text.
    let odd = glob.is_empty() || glob.contains('/') || printable(glob) != glob;
    let labels: Option<Vec<_>> = glob.split('.').map(canonical).collect();
    let glob = labels.filter(|_| !odd)?.join(".");
    Pattern::new(&glob).is_ok().then_some(glob)
}

/// A label of a domain's name as domains are compared: in lower case, and in ASCII. `None` if there is none.
fn canonical(label: &str) -> Option<String> {
    if label.is_ascii() {
        return Some(label.to_ascii_lowercase());
    }
    // A part of such a label is no part of what it is in ASCII.
    let whole = !label.contains(['*', '?', '[', ']']);
    whole.then(|| Host::parse(label).ok()).flatten().map(|host| host.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::{RuleAction::*, *};

    fn rules(list: &[(RuleAction, &str)]) -> Rules {
        let mut rules = Rules::default();
        for (action, glob) in list {
            rules.add(*action, glob).unwrap();
        }
        rules
    }

    fn on(rules: &Rules, rp_id: &str) -> Option<String> {
        rules.on(&RpId::vouched_for(rp_id.to_owned()).unwrap()).map(Rule::to_string)
    }

    #[test]
    fn what_no_rp_id_could_match_is_no_rule() {
        let mut rules = Rules::default();
        for glob in [
            "",
            "https://example.org",
            "example.org/login",
            "a[b",
            "***",
            "a\nb",
            "\u{202e}gro",
            "*bücher.example",
            "b[ü]cher.example",
            "\u{fffd}.example",
        ] {
            assert_eq!(rules.add(Never, glob), Err(RuleError::NotAGlob(glob.to_owned())));
        }
        assert_eq!(rules.add(Ask, &"x".repeat(256)), Err(RuleError::TooLong));
        assert_eq!(rules.add(Ask, &"ü.".repeat(60)), Err(RuleError::TooLong));
        assert_eq!(rules, Rules::default());
        rules.add(Ask, &"x".repeat(255)).unwrap();
        for n in 1..50 {
            rules.add(Never, &format!("{n}.example")).unwrap();
        }
        let full = rules.clone();
        assert_eq!(rules.add(Ask, "one.more"), Err(RuleError::TooMany));
        assert_eq!(rules, full);
        rules.add(Ask, "7.example").unwrap();
        assert_eq!(on(&rules, "7.example"), Some("ask 7.example".into()));
    }

    #[test]
    fn a_star_stands_for_any_text_and_not_for_what_goes_without_it() {
        let all = rules(&[(Never, "*")]);
        for rp_id in ["example.org", "localhost", "ssh:work", "a.b.c", ".", "EXAMPLE", "bücher.example"] {
            assert_eq!(on(&all, rp_id), Some("never *".into()), "{rp_id}");
        }
        let below = rules(&[(Ask, "*.example.com")]);
        for rp_id in ["a.example.com", "a.b.example.com", "A.Example.COM", ".example.com"] {
            assert_eq!(on(&below, rp_id), Some("ask *.example.com".into()), "{rp_id}");
        }
        for rp_id in
            ["example.com", "notexample.com", "a.example.com.evil.org", "a.example.org", "example.com."]
        {
            assert_eq!(on(&below, rp_id), None, "{rp_id}");
        }
        let odd = rules(&[(Never, "a?.[xy]*.org")]);
        let matched =
            ["ab.x.org", "ab.yes.a.org", "a.x.org", "ab.z.org"].map(|rp_id| on(&odd, rp_id).is_some());
        assert_eq!(matched, [true, true, false, false]);
    }

    #[test]
    fn names_are_compared_as_domains_are() {
        let books = rules(&[(Never, "*.BÜCHER.Example"), (Ask, "Xn--Bcher-KVA.example")]);
        let globs: Vec<_> = books.all().iter().map(|rule| rule.glob.as_str()).collect();
        assert_eq!(globs, ["*.xn--bcher-kva.example", "xn--bcher-kva.example"]);
        for rp_id in ["xn--bcher-kva.example", "bücher.example", "BÜCHER.example", "XN--BCHER-KVA.EXAMPLE"]
        {
            assert_eq!(on(&books, rp_id), Some("ask xn--bcher-kva.example".into()), "{rp_id}");
            assert!(on(&books, &format!("a.{rp_id}")).unwrap().starts_with("never "), "{rp_id}");
        }
    }

    #[test]
    fn the_most_restrictive_rule_counts_whatever_their_order() {
        let list = [(Ask, "*.org"), (Never, "example.*"), (Ask, "example.org")];
        for turn in 0..3 {
            let mut list = list;
            list.rotate_left(turn);
            assert_eq!(on(&rules(&list), "example.org"), Some("never example.*".into()));
        }
        let mut rules = rules(&list);
        assert_eq!(rules.remove("*"), None);
        assert_eq!(rules.remove("example.*"), Some(Rule { action: Never, glob: "example.*".into() }));
        assert!(on(&rules, "example.org").unwrap().starts_with("ask "));
    }
}
