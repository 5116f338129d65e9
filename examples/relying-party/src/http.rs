//! The same calls over HTTP. Every reply is one JSON object.

use std::error::Error;
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{FinishError, RelyingParty, StartError};

/// A page with buttons for a browser.
const PAGE: &str = include_str!("page.html");

/// The endpoints `POST /{register,login}/{start,finish}[?user=NAME]`, and at `/` a page that uses them. Errors are 4xx with
/// `{"error": "..."}`.
pub fn router(rp: RelyingParty) -> Router {
    Router::new()
        .route("/", get(async || Html(PAGE)))
        .route("/register/start", post(register_start))
        .route("/register/finish", post(register_finish))
        .route("/login/start", post(login_start))
        .route("/login/finish", post(login_finish))
        .fallback(async || Refusal(StatusCode::NOT_FOUND, "there is no such endpoint".to_owned()))
        .method_not_allowed_fallback(async || {
            Refusal(StatusCode::METHOD_NOT_ALLOWED, "the endpoints take POST".to_owned())
        })
        // A response with a long attestation chain is a few kilobytes.
        .layer(DefaultBodyLimit::max(64 * 1024))
        .with_state(Shared(Arc::new(Mutex::new(rp))))
}

type Reply = Result<Json<Value>, Refusal>;

async fn register_start(State(rp): State<Shared>, user: UserParam) -> Reply {
    let user = required_user(user)?;
    Ok(Json(rp.lock().start_registration(&user)?))
}

async fn register_finish(State(rp): State<Shared>, user: UserParam, body: Body) -> Reply {
    let user = required_user(user)?;
    rp.lock().finish_registration(&user, &parse(body)?)?;
    log("registered", &user);
    Ok(Json(json!({ "registered": user })))
}

async fn login_start(State(rp): State<Shared>, user: UserParam) -> Reply {
    let options = match optional_user(user)? {
        Some(user) => rp.lock().start_login(&user)?,
        None => rp.lock().start_discoverable_login()?,
    };
    Ok(Json(options))
}

async fn login_finish(State(rp): State<Shared>, user: UserParam, body: Body) -> Reply {
    let user = optional_user(user)?;
    let response = parse(body)?;
    let user = match user {
        Some(user) => rp.lock().finish_login(&user, &response).map(|()| user)?,
        None => rp.lock().finish_discoverable_login(&response)?,
    };
    log("signed in", &user);
    Ok(Json(json!({ "signedIn": user })))
}

/// Nobody has to read it.
fn log(what: &str, user: &str) {
    writeln!(std::io::stdout(), "{what}: {user:?}").ok();
}

#[derive(Clone)]
struct Shared(Arc<Mutex<RelyingParty>>);

impl Shared {
    /// Each call either completes a step or leaves the state as it was, so a panic elsewhere spoils nothing.
    fn lock(&self) -> MutexGuard<'_, RelyingParty> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// Results, so that axum's own rejections become JSON too.
type UserParam = Result<Query<UserQuery>, QueryRejection>;
type Body = Result<Bytes, BytesRejection>;

/// A misspelt `user` must not turn into a sign-in without one.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UserQuery {
    user: Option<String>,
}

fn optional_user(user: UserParam) -> Result<Option<String>, Refusal> {
    let Query(UserQuery { user }) =
        user.map_err(|rejection| Refusal(rejection.status(), rejection.body_text()))?;
    if user.as_deref() == Some("") {
        return Err(Refusal(StatusCode::BAD_REQUEST, "the user has no name".to_owned()));
    }
    Ok(user)
}

fn required_user(user: UserParam) -> Result<String, Refusal> {
    optional_user(user)?
        .ok_or_else(|| Refusal(StatusCode::BAD_REQUEST, "say who registers: ?user=NAME".to_owned()))
}

// Bytes, not axum's `Json`: `curl --data-binary @-` says form-urlencoded, and that is fine here.
fn parse(body: Body) -> Result<Value, Refusal> {
    let body = body.map_err(|rejection| Refusal(rejection.status(), rejection.body_text()))?;
    serde_json::from_slice(&body)
        .map_err(|error| Refusal(StatusCode::BAD_REQUEST, format!("the body is not JSON: {error}")))
}

struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}

impl From<StartError> for Refusal {
    fn from(error: StartError) -> Self {
        let status = match error {
            StartError::UnknownUser(_) => StatusCode::NOT_FOUND,
            StartError::Options(_) | StartError::Json(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, with_reasons(&error))
    }
}

impl From<FinishError> for Refusal {
    fn from(error: FinishError) -> Self {
        let status = match error {
            FinishError::Malformed(_) | FinishError::CredentialType(_) | FinishError::IdMismatch => {
                StatusCode::BAD_REQUEST
            }
            FinishError::NotStarted | FinishError::AlreadyRegistered => StatusCode::CONFLICT,
            FinishError::UnknownUserHandle | FinishError::WrongUserHandle | FinishError::Refused(_) => {
                StatusCode::FORBIDDEN
            }
        };
        Self(status, with_reasons(&error))
    }
}

/// The message and those of its causes, outermost first.
fn with_reasons(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
