//! The service behind a connector.

use sluice_http::reasons::reasons;
use sluice_http::{Request, Response};

use super::dial::LocalFuture;

reasons! {
    /// Why a target gave no answer. The sentence travels to the gateway: it says nothing of the inside.
    pub enum TargetFailed {
        Unreachable "target-unreachable" "no connection",
        TimedOut "target-timed-out" "took too long",
        Closed "target-closed" "connection closed before the answer",
        Malformed "target-malformed" "malformed answer",
        NoForm "target-no-form" "the target's protocol has no form for this request",
        Upload "target-upload" "request body incomplete",
        Panicked "target-panicked" "internal error",
    }
}

/// What answers requests: a client of a service, or the service itself.
///
/// Both bodies stream: the request's is pulled as it arrives, the answer's as the gateway takes it. Dropping the
/// future, or the answer's body, gives the call up: that is how a target hears that a client has gone.
///
/// To change the protocol, answer a request that asks for it (Upgrade) with 101: then both bodies are the other
/// protocol's bytes. An interim answer (1xx) other than this has no form in a tunnel.
pub trait Target {
    /// Answers a request.
    fn call(&self, request: Request) -> LocalFuture<Result<Response, TargetFailed>>;
}
