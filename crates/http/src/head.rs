//! Request and response heads: the start line beside the fields.
//!
//! Promise: the target is kept as received until somebody sets another; nothing here decodes or repairs.

use bytes::Bytes;

use crate::fields::{Fields, Span, Text};
use crate::name::NameId;

/// The protocol version a message was received in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
    /// HTTP/2
    Http2,
}

impl Version {
    /// "1.0", "1.1" or "2", as Via and logs spell it.
    pub const fn text(self) -> &'static str {
        match self {
            Version::Http10 => "1.0",
            Version::Http11 => "1.1",
            Version::Http2 => "2",
        }
    }
}

/// A request method. Unknown tokens are passed on: their text is in the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each variant is the method it spells")]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Connect,
    Options,
    Trace,
    Patch,
    Query,
    Other,
}

impl Method {
    /// The method a token names (case-sensitive, RFC 9110 section 9.1).
    pub fn of(token: &[u8]) -> Method {
        match token {
            b"GET" => Method::Get,
            b"HEAD" => Method::Head,
            b"POST" => Method::Post,
            b"PUT" => Method::Put,
            b"DELETE" => Method::Delete,
            b"CONNECT" => Method::Connect,
            b"OPTIONS" => Method::Options,
            b"TRACE" => Method::Trace,
            b"PATCH" => Method::Patch,
            b"QUERY" => Method::Query,
            _ => Method::Other,
        }
    }

    /// Whether sending it twice has the effect of sending it once (RFC 9110 section 9.2.2, RFC 10008).
    pub const fn is_idempotent(self) -> bool {
        matches!(
            self,
            Method::Get
                | Method::Head
                | Method::Put
                | Method::Delete
                | Method::Options
                | Method::Trace
                | Method::Query
        )
    }
}

/// The head of a request.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// The method; `method_text` spells it.
    pub method: Method,
    /// The version the client spoke.
    pub version: Version,
    /// The fields.
    pub fields: Fields,
    method_span: Span,
    target: Span,
}

impl RequestHead {
    /// A new HTTP/1.1 request head without fields.
    pub fn new(method: &str, target: &str) -> RequestHead {
        let mut fields = Fields::new();
        let method_span = fields.text.add(method.as_bytes());
        let target = fields.text.add(target.as_bytes());
        RequestHead {
            method: Method::of(method.as_bytes()),
            version: Version::Http11,
            fields,
            method_span,
            target,
        }
    }

    /// A request head with these fields; `target` may stand in a start line as it is.
    pub fn with_fields(method: &str, target: &str, version: Version, mut fields: Fields) -> RequestHead {
        let method_span = fields.text.add(method.as_bytes());
        let target = fields.text.add(target.as_bytes());
        RequestHead { method: Method::of(method.as_bytes()), version, fields, method_span, target }
    }

    /// For the parser: `method` and `target` are slices of `raw`.
    pub(crate) fn received(raw: Bytes, method: &[u8], target: &[u8], version: Version) -> RequestHead {
        let text = Text::new(raw);
        let (method_span, target) = (text.span_of(method), text.span_of(target));
        let method = Method::of(method);
        RequestHead { method, version, fields: Fields { text, list: Vec::new() }, method_span, target }
    }

    /// The method as received.
    pub fn method_text(&self) -> &str {
        std::str::from_utf8(self.fields.text.get(self.method_span)).unwrap_or("?")
    }

    /// Replaces the method.
    pub fn set_method(&mut self, method: &str) {
        self.method = Method::of(method.as_bytes());
        self.method_span = self.fields.text.add(method.as_bytes());
    }

    /// The request target as received: origin, absolute, authority or asterisk form. Always ASCII or UTF-8.
    pub fn target(&self) -> &str {
        std::str::from_utf8(self.fields.text.get(self.target)).unwrap_or("/")
    }

    /// Replaces the request target. Bytes that may not stand in a start line are percent-encoded.
    pub fn set_target(&mut self, target: &str) {
        if target.bytes().all(is_target) {
            self.target = self.fields.text.add(target.as_bytes());
            return;
        }
        let mut clean = String::with_capacity(target.len() + 16);
        for byte in target.bytes() {
            match is_target(byte) {
                true => clean.push(byte as char),
                false => clean.push_str(&format!("%{byte:02X}")),
            }
        }
        self.target = self.fields.text.add(clean.as_bytes());
    }

    /// The path of the target, without query; "/" for an absolute form without path, "*" for asterisk form,
    /// empty for authority form (CONNECT).
    pub fn path(&self) -> &str {
        self.path_and_query().split('?').next().unwrap_or("/")
    }

    /// The query without its question mark.
    pub fn query(&self) -> Option<&str> {
        self.path_and_query().split_once('?').map(|(_, query)| query)
    }

    /// Path and query of the target in origin form.
    pub fn path_and_query(&self) -> &str {
        let target = self.target();
        if target.starts_with('/') || target == "*" {
            return target;
        }
        if self.method == Method::Connect {
            return "";
        }
        match self.absolute() {
            Some((_, rest)) => rest.find(['/', '?']).map_or("/", |at| &rest[at..]),
            None => target,
        }
    }

    /// The scheme of a target in absolute form, and what follows its `://`. Nearly every target is a path: nothing is
    /// searched in it.
    pub fn absolute(&self) -> Option<(&str, &str)> {
        let target = self.target();
        if target.starts_with('/') { None } else { target.split_once("://") }
    }

    /// The authority the request is for: the absolute or authority form's, else the Host field's value.
    pub fn authority(&self) -> &str {
        if self.method == Method::Connect {
            return self.target();
        }
        if let Some((_, rest)) = self.absolute() {
            return &rest[..rest.find(['/', '?']).unwrap_or(rest.len())];
        }
        self.fields.get_str(NameId::Host).unwrap_or("")
    }

    /// The host of the authority, without port; an IPv6 literal keeps its brackets.
    pub fn host(&self) -> &str {
        host_of(self.authority())
    }
}

/// The host part of `host[:port]`; an IPv6 literal keeps its brackets.
pub fn host_of(authority: &str) -> &str {
    let bytes = authority.as_bytes();
    let end = match bytes.first() {
        Some(b'[') => bytes.iter().position(|byte| *byte == b']').map(|at| at + 1),
        _ => bytes.iter().position(|byte| *byte == b':'),
    };
    &authority[..end.unwrap_or(bytes.len())]
}

const fn is_target(byte: u8) -> bool {
    byte > 0x20 && byte != 0x7f && byte < 0x80
}

/// The head of a response.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    /// The status code, 100 to 999.
    pub status: u16,
    /// The version the origin spoke.
    pub version: Version,
    /// The fields.
    pub fields: Fields,
    reason: Option<Span>,
}

impl ResponseHead {
    /// A new response head without fields; its reason phrase is the registered one.
    pub fn new(status: u16) -> ResponseHead {
        ResponseHead { status, version: Version::Http11, fields: Fields::new(), reason: None }
    }

    /// For the parser: `reason` is a slice of `raw`.
    pub(crate) fn received(raw: Bytes, status: u16, reason: &[u8], version: Version) -> ResponseHead {
        let text = Text::new(raw);
        let reason = Some(text.span_of(reason));
        ResponseHead { status, version, fields: Fields { text, list: Vec::new() }, reason }
    }

    /// The reason phrase: as received, or the registered one.
    pub fn reason(&self) -> &[u8] {
        match self.reason {
            Some(span) => self.fields.text.get(span),
            None => reason_of(self.status).as_bytes(),
        }
    }

    /// Sets the status; the reason phrase becomes the registered one.
    pub fn set_status(&mut self, status: u16) {
        self.status = status;
        self.reason = None;
    }
}

/// The registered reason phrase of a status code; empty for an unregistered one.
pub const fn reason_of(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        102 => "Processing",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        207 => "Multi-Status",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        511 => "Network Authentication Required",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_forms_give_path_query_and_authority() {
        let head = RequestHead::new("GET", "http://a.example:81/x/y?z=1");
        assert_eq!((head.path(), head.query(), head.authority()), ("/x/y", Some("z=1"), "a.example:81"));
        assert_eq!(head.host(), "a.example");
        let head = RequestHead::new("GET", "http://a.example?z=1");
        assert_eq!((head.path(), head.query()), ("", Some("z=1")));
        let head = RequestHead::new("CONNECT", "a.example:443");
        assert_eq!((head.path(), head.authority()), ("", "a.example:443"));
        let mut head = RequestHead::new("OPTIONS", "*");
        head.fields.append(NameId::Host, b"[::1]:80");
        assert_eq!((head.path(), head.host()), ("*", "[::1]"));
    }

    #[test]
    fn a_target_cannot_split_a_head() {
        let mut head = RequestHead::new("GET", "/");
        head.set_target("/a b\r\nX: é");
        assert_eq!(head.target(), "/a%20b%0D%0AX:%20%C3%A9");
    }
}
