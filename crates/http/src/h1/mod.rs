//! HTTP/1.0 and HTTP/1.1 on the wire (RFC 9112), strict by default: what is ambiguous is refused, never
//! repaired. Every refusal has a reason that is counted.

mod chunk;
mod crossing;
pub mod decode;
mod diagnose;
pub mod encode;
mod framing;
mod options;
pub mod parse;
pub mod scan;
mod target;
mod trailer;

use std::fmt;

pub use crossing::{crossing, wants_trailers};
pub use decode::{Decoded, Decoder};
pub use encode::{
    CHUNK_END, LAST_CHUNK, Persist, chunk_start, interim_head, request_head, response_head, trailers,
};
pub use options::{Expectation, connection_has, expects_continue, keep_alive, upgrade};
pub use parse::{check, request, response};
pub use scan::Scanner;
pub use trailer::is_allowed as may_be_trailer;

/// How much of a head is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the start line and of each field line.
    pub line: usize,
    /// Bytes of the whole head.
    pub head: usize,
    /// Number of field lines.
    pub fields: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { line: 8 * 1024, head: 16 * 1024, fields: 100 }
    }
}

/// How the length of a body is given (RFC 9112 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No body follows the head.
    None,
    /// Exactly so many bytes; never 0 on requests that have no Content-Length.
    Length(u64),
    /// Chunked transfer coding.
    Chunked,
    /// All bytes until the connection closes; responses only.
    Close,
}

macro_rules! refusals {
    ($($name:ident $code:literal $status:literal $text:literal,)*) => {
        /// Why bytes were refused. The code is stable: it labels a counter.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "the text of each row says it")]
        pub enum Refusal { $($name,)* }

        impl Refusal {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Refusal] = &[$(Refusal::$name,)*];

            /// The kebab-case code that counts it.
            pub const fn code(self) -> &'static str {
                match self { $(Refusal::$name => $code,)* }
            }

            /// The status a refused request is answered with.
            pub const fn status(self) -> u16 {
                match self { $(Refusal::$name => $status,)* }
            }
        }

        impl fmt::Display for Refusal {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Refusal::$name => $text,)* })
            }
        }
    };
}

refusals! {
    BareLf "bare-lf" 400 "a line ends in LF without CR",
    BareCr "bare-cr" 400 "a CR stands inside a line",
    BadStartLine "bad-start-line" 400 "the start line is malformed",
    BadMethod "bad-method" 400 "the method is not a token",
    BadTarget "bad-target" 400 "the request target is malformed",
    BadVersion "bad-version" 505 "the HTTP version is not 1.0 or 1.1",
    BadStatus "bad-status" 400 "the status code is malformed",
    BadName "bad-field-name" 400 "a field name is malformed, or space stands before its colon",
    BadValue "bad-field-value" 400 "a field value holds a control byte",
    Folded "folded-line" 400 "a field line is folded",
    LineTooLong "line-too-long" 431 "a field line is longer than allowed",
    TargetTooLong "target-too-long" 414 "the start line is longer than allowed",
    HeadTooLarge "head-too-large" 431 "the head is larger than allowed",
    TooManyFields "too-many-fields" 431 "the head has more fields than allowed",
    HostMissing "host-missing" 400 "an HTTP/1.1 request has no Host",
    HostRepeated "host-repeated" 400 "the request has more than one Host",
    BadHost "bad-host" 400 "the Host is malformed, or differs from the target's authority",
    LengthAndEncoding "length-and-encoding" 400 "Content-Length and Transfer-Encoding stand together",
    BadLength "bad-content-length" 400 "Content-Length is malformed, repeated or too large",
    BadEncoding "bad-transfer-encoding" 400 "Transfer-Encoding is malformed, or chunked is not final",
    UnknownEncoding "unknown-transfer-encoding" 501 "a transfer coding other than chunked is not supported",
    EncodingInHttp10 "encoding-in-http10" 400 "Transfer-Encoding in an HTTP/1.0 message",
    BadChunk "bad-chunk" 400 "a chunk is malformed",
    BadTrailer "bad-trailer" 400 "a trailer field is malformed, too large or not allowed",
    UnexpectedBody "unexpected-body" 400 "a body on a request that may not have one",
    ConnectionField "connection-field" 400 "an HTTP/2 message holds a field that is for an HTTP/1 connection",
}

impl std::error::Error for Refusal {}
