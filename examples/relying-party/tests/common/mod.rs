//! A server on a free port, an HTTP client for it, and a software authenticator that can be told to lie.

mod authenticator;
mod http;

pub(crate) use authenticator::{Authenticator, Lie};
pub(crate) use http::Server;
