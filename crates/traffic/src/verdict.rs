//! What an attempt says about its endpoint. The caller classifies; this crate knows no status codes.

/// What an attempt says about its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The endpoint did its work: any answer it meant to give, a 404 included.
    Success,
    /// The endpoint did not: connect error, time-out, reset, broken answer, 5xx.
    Failure,
    /// It says nothing: the client went away, the gateway gave up for a reason of its own.
    Ignored,
}
