//! How an authenticating filter says no.

use std::sync::Arc;

use crate::exchange::{Exchange, Role};
use crate::failure::Failure;
use crate::problem::{At, Problems};

/// What the realm is when none is given.
const REALM: &str = "restricted";

/// A realm, quoted (RFC 9110 section 5.6.4).
pub(super) fn realm(written: Option<&String>, at: &At, problems: &mut Problems) -> String {
    let realm = written.map_or(REALM, String::as_str);
    // Beyond ASCII browsers do not agree.
    if realm.bytes().any(|byte| !(0x20..0x7f).contains(&byte)) {
        problems.add(&at.key("realm"), "a realm has printable ASCII characters only");
    }
    format!("\"{}\"", realm.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Notes which credentials are asked for, and forgets who was thought to ask.
pub(super) fn refuse(exchange: &mut Exchange, challenge: &Arc<str>) -> Failure {
    exchange.user = None;
    exchange.consumer = None;
    exchange.claims = None;
    exchange.challenge = Arc::clone(challenge);
    match exchange.role {
        Role::Gateway => Failure::Unauthenticated,
        Role::Proxy => Failure::ProxyUnauthenticated,
    }
}
