//! The relying party over real HTTP, refusals first.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed step fails the test")]

mod common;

use common::{Authenticator, Lie, Server};
use serde_json::{Value, json};

#[test]
fn a_wrong_registration_is_refused_with_its_reason() {
    let server = Server::start();
    for (lie, reason) in [
        (Lie::Challenge, "challenge differs"),
        (Lie::Origin, "origin does not match"),
        (Lie::RpId, "relying party id hash does not match"),
        (Lie::Type, "did not indicate webauthn.<method>"),
        (Lie::UserVerified, "user verified bit is not set"),
        (Lie::Signature, "attestation statement"),
    ] {
        let options = start(&server, "/register/start?user=alice");
        let response = Authenticator::new(&server.origin, 1).create(&options, lie);
        let refused = server.post("/register/finish?user=alice", response.to_string());
        assert_refused(&refused, 403, reason);
    }
    assert_refused(&server.post("/login/start?user=alice", ""), 404, "no passkey is registered");
}

#[test]
fn a_wrong_sign_in_is_refused_with_its_reason() {
    let (server, mut alice) = registered("alice", 1);
    for (lie, reason) in [
        (Lie::Challenge, "challenge differs"),
        (Lie::Origin, "origin does not match"),
        (Lie::RpId, "relying party id hash does not match"),
        (Lie::Type, "did not indicate webauthn.<method>"),
        (Lie::UserVerified, "user verified bit is not set"),
        (Lie::Signature, "Authentication has failed"),
    ] {
        for query in ["?user=alice", ""] {
            let options = start(&server, &format!("/login/start{query}"));
            let response = alice.get(&options, lie);
            let refused = server.post(&format!("/login/finish{query}"), response.to_string());
            assert_refused(&refused, 403, reason);
        }
    }
}

#[test]
fn a_counter_that_stands_still_is_refused() {
    let (server, mut alice) = registered("alice", 1);
    let signed_in = login(&server, "?user=alice", |options| alice.get(options, Lie::None));
    assert_eq!(signed_in, (200, json!({ "signedIn": "alice" })));
    let refused = login(&server, "?user=alice", |options| alice.get(options, Lie::Counter));
    assert_refused(&refused, 403, "compromised");
}

#[test]
fn a_challenge_is_answered_once() {
    let (server, mut alice) = registered("alice", 1);
    let options = start(&server, "/login/start?user=alice");
    let response = alice.get(&options, Lie::None).to_string();
    assert_eq!(server.post("/login/finish?user=alice", &response).0, 200);
    assert_refused(&server.post("/login/finish?user=alice", &response), 409, "no challenge waits");
    assert_refused(&server.post("/login/finish", &response), 409, "no challenge waits");
    assert_refused(&server.post("/register/finish?user=bob", registration()), 409, "no challenge waits");
}

#[test]
fn a_newer_start_replaces_the_challenge() {
    let server = Server::start();
    let old = start(&server, "/register/start?user=alice");
    start(&server, "/register/start?user=alice");
    let response = Authenticator::new(&server.origin, 1).create(&old, Lie::None);
    let refused = server.post("/register/finish?user=alice", response.to_string());
    assert_refused(&refused, 403, "challenge differs");
}

#[test]
fn garbage_is_refused_and_the_challenge_still_waits() {
    let server = Server::start();
    let options = start(&server, "/register/start?user=alice");
    let finish = |body: &str| server.post("/register/finish?user=alice", body);
    assert_refused(&finish("{garbage"), 400, "not JSON");
    assert_refused(&finish(""), 400, "not JSON");
    assert_refused(&finish("{}"), 400, "missing field `id`");
    let good = Authenticator::new(&server.origin, 1).create(&options, Lie::None);
    let with = |member: &str, value: &str| {
        let mut response = good.clone();
        response[member] = json!(value);
        response.to_string()
    };
    assert_refused(&finish(&with("rawId", "+/==")), 400, "malformed");
    assert_refused(&finish(&with("id", "AAAA")), 400, "not the base64url of its rawId");
    assert_refused(&finish(&with("type", "password")), 400, "not \"public-key\"");
    assert_refused(&finish(&"x".repeat(65 * 1024)), 413, "limit");
    assert_eq!(finish(&good.to_string()), (200, json!({ "registered": "alice" })));
}

#[test]
fn a_malformed_sign_in_is_refused() {
    let (server, mut alice) = registered("alice", 1);
    let options = start(&server, "/login/start");
    let mut response = alice.get(&options, Lie::None);
    response["response"]["signature"].take();
    assert_refused(&server.post("/login/finish", response.to_string()), 400, "malformed");
}

#[test]
fn a_registered_credential_is_not_registered_again() {
    let (server, _) = registered("alice", 1);
    for user in ["alice", "mallory"] {
        let options = start(&server, &format!("/register/start?user={user}"));
        let response = Authenticator::new(&server.origin, 1).create(&options, Lie::None);
        let refused = server.post(&format!("/register/finish?user={user}"), response.to_string());
        assert_refused(&refused, 409, "already registered");
    }
}

#[test]
fn a_passkey_signs_in_only_its_own_user() {
    let (server, mut alice) = registered("alice", 1);
    let mut bob = register(&server, "bob", 2);
    let refused = login(&server, "?user=alice", |options| bob.get(options, Lie::None));
    assert_refused(&refused, 403, "belongs to another account");
    let without_handle = |mut response: Value| {
        response["response"]["userHandle"].take();
        response
    };
    let refused = login(&server, "?user=alice", |options| without_handle(bob.get(options, Lie::None)));
    assert_refused(&refused, 403, "could not be found");
    let refused = login(&server, "", |options| without_handle(bob.get(options, Lie::None)));
    assert_refused(&refused, 403, "belongs to nobody here");
    let refused = login(&server, "", |options| {
        let mut response = bob.get(options, Lie::None);
        response["response"]["userHandle"] = alice.get(options, Lie::None)["response"]["userHandle"].take();
        response
    });
    assert_refused(&refused, 403, "could not be found");
}

#[test]
fn a_request_without_its_user_is_refused() {
    let server = Server::start();
    assert_refused(
        &server.post("/login/start?user=nobody", ""),
        404,
        "no passkey is registered for \"nobody\"",
    );
    assert_refused(&server.post("/login/finish?user=nobody", assertion()), 409, "no challenge waits");
    assert_refused(&server.post("/register/start", ""), 400, "say who registers");
    assert_refused(&server.post("/register/finish", "{}"), 400, "say who registers");
    assert_refused(&server.post("/login/start?user=", ""), 400, "no name");
    assert_refused(&server.post("/login/start?usr=alice", ""), 400, "unknown field `usr`");
    assert_refused(&server.post("/logout", ""), 404, "no such endpoint");
    assert_refused(&server.send("GET", "/login/start", ""), 405, "take POST");
}

#[test]
fn the_options_require_a_discoverable_credential_and_user_verification() {
    let (server, _) = registered("alice", 1);
    let options = start(&server, "/register/start?user=alice");
    assert_eq!(options.as_object().unwrap().len(), 1);
    let options = &options["publicKey"];
    assert_eq!(options["rp"]["id"], "localhost");
    assert_eq!(options["attestation"], "none");
    assert_eq!(
        options["authenticatorSelection"],
        json!({ "residentKey": "required", "requireResidentKey": true, "userVerification": "required" })
    );
    let credential_id = registration_id();
    assert_eq!(options["excludeCredentials"][0]["id"], credential_id);

    let options = start(&server, "/login/start?user=alice");
    assert_eq!(options["publicKey"]["userVerification"], "required");
    assert_eq!(options["publicKey"]["allowCredentials"][0]["id"], credential_id);
    let options = start(&server, "/login/start");
    assert_eq!(options.as_object().unwrap().len(), 1);
    assert_eq!(options["publicKey"]["userVerification"], "required");
    assert_eq!(options["publicKey"]["allowCredentials"], json!([]));
}

#[test]
fn a_passkey_signs_in_with_and_without_the_user_name() {
    let (server, mut alice) = registered("alice", 1);
    let mut second = register(&server, "alice", 2);
    let mut bob = register(&server, "bob", 3);
    for query in ["?user=alice", ""] {
        for passkey in [&mut alice, &mut second] {
            let signed_in = login(&server, query, |options| passkey.get(options, Lie::None));
            assert_eq!(signed_in, (200, json!({ "signedIn": "alice" })));
        }
    }
    let signed_in = login(&server, "", |options| bob.get(options, Lie::None));
    assert_eq!(signed_in, (200, json!({ "signedIn": "bob" })));
}

#[test]
fn an_origin_without_a_host_name_is_refused() {
    for origin in ["localhost", "", "http://127.0.0.1:8080", "data:text/plain,x"] {
        let error = relying_party::RelyingParty::new(origin).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("{origin:?} is not an origin with a host name, like http://localhost:8080")
        );
    }
}

fn registered(user: &str, seed: u8) -> (Server, Authenticator) {
    let server = Server::start();
    let authenticator = register(&server, user, seed);
    (server, authenticator)
}

fn register(server: &Server, user: &str, seed: u8) -> Authenticator {
    let mut authenticator = Authenticator::new(&server.origin, seed);
    let options = start(server, &format!("/register/start?user={user}"));
    let response = authenticator.create(&options, Lie::None);
    let reply = server.post(&format!("/register/finish?user={user}"), response.to_string());
    assert_eq!(reply, (200, json!({ "registered": user })));
    authenticator
}

fn login(server: &Server, query: &str, answer: impl FnOnce(&Value) -> Value) -> (u16, Value) {
    let options = start(server, &format!("/login/start{query}"));
    server.post(&format!("/login/finish{query}"), answer(&options).to_string())
}

fn start(server: &Server, path: &str) -> Value {
    let (status, options) = server.post(path, "");
    assert_eq!(status, 200, "{options}");
    options
}

/// Responses to no challenge in particular.
fn registration() -> String {
    let options =
        json!({ "publicKey": { "challenge": "", "rp": { "id": "localhost" }, "user": { "id": "" } } });
    Authenticator::new("http://localhost", 1).create(&options, Lie::None).to_string()
}

fn assertion() -> String {
    let options = json!({ "publicKey": { "challenge": "", "rpId": "localhost" } });
    Authenticator::new("http://localhost", 1).get(&options, Lie::None).to_string()
}

fn registration_id() -> Value {
    serde_json::from_str::<Value>(&registration()).unwrap()["id"].take()
}

fn assert_refused((status, reply): &(u16, Value), expected: u16, reason: &str) {
    assert_eq!(*status, expected, "{reply}");
    assert_eq!(reply.as_object().unwrap().len(), 1);
    let error = reply["error"].as_str().unwrap();
    assert!(error.contains(reason), "{error:?} lacks {reason:?}");
}
