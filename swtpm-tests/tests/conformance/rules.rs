//! The person's rules for new passkeys: what no step of the specification says, and what its steps must not tell of them.

use ciborium::Value;
use ctap::{Declined, Status, Vaults};
use swtpm_tests::{PIN, pin, rng};
use vault_core::{RuleAction, container::Refusal};

use super::{Bench, descriptor, make_credential, map, options, with};

const MAKE: u8 = 0x01;
const PROOF: (i64, i64) = (8, 9);

impl Bench {
    fn rule(&mut self, action: RuleAction, glob: &str) {
        let mut vault = self.vault.open().unwrap();
        let mut settings = vault.settings().unwrap();
        settings.rules.add(action, glob).unwrap();
        vault.unlock(&pin(PIN)).unwrap().configure(&settings, &mut rng()).unwrap();
    }
}

#[test]
fn never_is_said_without_asking_anybody_whatever_is_here() {
    let mut bench = Bench::new();
    let known = bench.passkey("alice");
    bench.rule(RuleAction::Never, "*.org");
    bench.person.asked.clear();
    let request = make_credential::request();
    let list = |id: &[u8]| with(&request, 5, Value::Array(vec![descriptor(id)]));
    let upper = with(&request, 2, map([("id".into(), "EXAMPLE.org".into())]));
    for (what, rp_id, request) in [
        ("the site's request", "example.org", request.clone()),
        ("a passkey that is here is excluded", "example.org", list(&known)),
        ("one that is not", "example.org", list(&[9; 32])),
        ("discoverable", "example.org", with(&request, 7, options("rk", true))),
        ("in other letters", "EXAMPLE.org", upper),
    ] {
        bench.refuses(what, MAKE, &request, Status::OperationDenied);
        let token = bench.token(2, 0x01, Some(rp_id));
        let proven = token.prove(&request, PROOF, &make_credential::CLIENT_DATA);
        bench.refuses(what, MAKE, &proven, Status::OperationDenied);
    }
    // A token from our own prompt would be good for nothing.
    let platform = bench.platform(2);
    for permissions in [0x01, 0x03] {
        let uv = platform.token_using_uv(permissions, Some("example.org"));
        bench.refuses("a token to make one", 0x06, &uv, Status::OperationDenied);
    }
    assert_eq!(bench.person.asked, [""; 0]);
    assert_eq!(bench.vault_accounts(), 1);
    // Who had a token is in the log, once for each time that it is another; who had none could fill it.
    let log = bench.vault.open().unwrap().log().unwrap().entries;
    let by_rule =
        log.iter().flat_map(|(_, entry)| entry).filter(|entry| entry.refusal == Some(Refusal::Rule));
    assert_eq!(
        by_rule.map(|entry| entry.subject.clone().unwrap().rp_id).collect::<Vec<_>>(),
        ["example.org", "EXAMPLE.org"]
    );

    // Signing in, and looking for the authenticator, are no matter of rules.
    bench.ok(0x06, &platform.token_using_uv(0x02, Some("example.org")));
    let blink = with(&make_credential::request(), 2, map([("id".into(), ".dummy".into())]));
    bench.rule(RuleAction::Never, "*");
    bench.refuses("a look", MAKE, &blink, Status::PinInvalid);
    let sign = map([(1.into(), "example.org".into()), (2.into(), Value::Bytes(vec![7; 32]))]);
    bench.ok(0x02, &sign);
}

/// A program that has no token learns nothing of the rules that it does not learn on the screen.
#[test]
fn a_request_that_is_refused_anyway_is_refused_alike_with_a_rule_and_without() {
    let mut bench = Bench::new();
    let token = bench.token(2, 0x01, Some("elsewhere.example"));
    let request = make_credential::request();
    let of_no_algorithm = with(&request, 4, Value::Array(vec![]));
    let mut answers = Vec::new();
    for _ in 0..2 {
        answers.push(
            [
                token.prove(&request, PROOF, &[8; 32]),
                token.prove(&request, PROOF, &make_credential::CLIENT_DATA),
                of_no_algorithm.clone(),
                with(&request, 7, options("up", false)),
                with(&request, 10, Value::from(1)),
            ]
            .map(|request| bench.call(MAKE, &request).0),
        );
        bench.rule(RuleAction::Never, "example.org");
    }
    let statuses = [
        Status::PinAuthInvalid,
        Status::PinAuthInvalid,
        Status::UnsupportedAlgorithm,
        Status::InvalidOption,
        Status::InvalidParameter,
    ];
    assert_eq!(answers, [statuses.map(Status::code); 2]);
    assert_eq!(bench.person.asked, [""; 0]);
}

#[test]
fn where_a_rule_asks_the_prompt_says_so_whoever_verifies() {
    let mut bench = Bench::new();
    bench.rule(RuleAction::Ask, "*.org");
    let request = make_credential::request();
    let token = bench.token(2, 0x01, Some("example.org"));
    let proven = token.prove(&request, PROOF, &make_credential::CLIENT_DATA);
    for request in [&request, &proven] {
        bench.refuses_if("the person says no", Declined::No, (MAKE, request), Status::OperationDenied);
    }
    assert_eq!(bench.vault_accounts(), 0);
    bench.ok(MAKE, &proven);
    let rule = r#"rule: Some(Rule { action: Ask, glob: "*.org" }) }"#;
    assert_eq!(bench.person.asked.len(), 3);
    assert!(bench.person.asked.iter().all(|ask| ask.ends_with(rule)), "{:?}", bench.person.asked);
    let ways: Vec<_> = bench.person.asked.iter().map(|ask| ask.split(' ').next().unwrap()).collect();
    assert_eq!(ways, ["PIN", "confirm", "confirm"]);
}
