//! The same bytes to our engine and to hyper: same verdict, framing, fields and bodies, or a row in a table that
//! says why not. The corpus lies in `corpus/`; a response's file name may start with the request's method.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod oracle;
mod ours;

use std::fmt::Write as _;
use std::path::Path;

/// How the two differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// We refuse what hyper accepts.
    Stricter,
    /// We accept what hyper refuses.
    Looser,
    /// Both accept, and find something else.
    Other,
}

/// One message as an engine understood it.
#[derive(Debug, PartialEq, Eq)]
struct Message {
    /// Method and target, or status and reason.
    start: String,
    version: &'static str,
    /// Lower-case names, sorted: hyper keeps the order within a name only.
    fields: Vec<(String, Vec<u8>)>,
    /// The body's length, where the head tells it.
    length: Option<u64>,
    body: Vec<u8>,
    trailers: Vec<(String, Vec<u8>)>,
}

/// What an engine made of a file.
#[derive(Debug, PartialEq, Eq)]
struct Reading {
    /// The complete messages.
    messages: Vec<Message>,
    /// Whether all bytes were understood; else the rest was refused or is incomplete.
    is_clean: bool,
}

impl Reading {
    fn difference(&self, hyper: &Reading) -> Option<Kind> {
        match (self.is_clean, hyper.is_clean) {
            _ if self == hyper => None,
            (false, true) => Some(Kind::Stricter),
            (true, false) => Some(Kind::Looser),
            _ => Some(Kind::Other),
        }
    }
}

/// File, how the two differ, why that is right.
type Row = (&'static str, Kind, &'static str);

#[rustfmt::skip]
const REQUESTS: &[Row] = &[
    ("chunk-extension-control", Kind::Stricter, "a control byte in an extension (RFC 9112 section 7.1.1)"),
    ("chunk-extension-empty", Kind::Stricter, "an extension has a name (RFC 9112 section 7.1.1)"),
    ("chunk-extension-long", Kind::Stricter, "a chunk line has at most 256 bytes"),
    ("chunk-extension-space", Kind::Stricter, "whitespace in extensions is \"bad\", and read in two ways by others"),
    ("chunk-size-17-digits", Kind::Stricter, "at most 16 digits, leading zeros too: no use for them but to confuse"),
    ("chunk-size-space-after", Kind::Stricter, "no whitespace around the size (RFC 9112 section 7.1)"),
    ("chunk-trailer-authorization", Kind::Stricter, "identity is read from the head only (RFC 9110 section 6.5.1)"),
    ("chunk-trailer-content-length", Kind::Stricter, "framing is read from the head only (RFC 9110 section 6.5.1)"),
    ("chunk-trailer-host", Kind::Stricter, "routing is read from the head only (RFC 9110 section 6.5.1)"),
    ("chunk-trailer-transfer-encoding", Kind::Stricter, "framing is read from the head only (RFC 9110 section 6.5.1)"),
    ("cl-twice-equal", Kind::Stricter, "a repeated Content-Length, even an equal one (RFC 9112 section 6.3 allows either)"),
    ("connect-body", Kind::Stricter, "bytes after CONNECT are the tunnel's; a length says they are not"),
    ("connect-no-port", Kind::Stricter, "CONNECT names host and port (RFC 9110 section 9.3.6)"),
    ("connect-path", Kind::Stricter, "CONNECT takes the authority form only (RFC 9112 section 3.2.3)"),
    ("end-bare-lf", Kind::Stricter, "CRLF only"),
    ("field-bare-lf", Kind::Stricter, "CRLF only"),
    ("host-bad-ipv6", Kind::Stricter, "Host has a grammar (RFC 9110 section 7.2); hyper leaves it to its user"),
    ("host-bad-port", Kind::Stricter, "Host has a grammar (RFC 9110 section 7.2); hyper leaves it to its user"),
    ("host-empty", Kind::Stricter, "an http URI has no empty host (RFC 9110 section 4.2.1)"),
    ("host-missing", Kind::Stricter, "HTTP/1.1 has a Host (RFC 9112 section 3.2); hyper leaves it to its user"),
    ("host-path", Kind::Stricter, "Host has a grammar (RFC 9110 section 7.2); hyper leaves it to its user"),
    ("host-space", Kind::Stricter, "Host has a grammar (RFC 9110 section 7.2); hyper leaves it to its user"),
    ("host-twice", Kind::Stricter, "one Host (RFC 9112 section 3.2); hyper leaves it to its user"),
    ("host-twice-equal", Kind::Stricter, "one Host (RFC 9112 section 3.2); hyper leaves it to its user"),
    ("host-userinfo", Kind::Stricter, "Host has no userinfo (RFC 9110 section 7.2)"),
    ("line-bare-lf", Kind::Stricter, "CRLF only"),
    ("target-absolute-ftp", Kind::Stricter, "a gateway speaks for http and https only"),
    ("target-absolute-no-path", Kind::Other, "the target stays as received; hyper writes the path \"/\""),
    ("target-absolute-other-host", Kind::Stricter, "Host is the target's authority (RFC 9112 section 3.2.2)"),
    ("target-absolute-userinfo", Kind::Stricter, "userinfo in a request is an error (RFC 9110 section 4.2.4)"),
    ("target-authority-get", Kind::Stricter, "the authority form is for CONNECT (RFC 9112 section 3.2.3)"),
    ("target-fragment", Kind::Stricter, "a target has no fragment (RFC 9112 section 3.2); hyper cuts it off"),
    ("target-quote", Kind::Stricter, "not in any URI, and no browser sends it raw"),
    ("target-star-get", Kind::Stricter, "the asterisk form is for OPTIONS (RFC 9112 section 3.2.4)"),
    ("te-and-cl", Kind::Stricter, "both together are an attack (RFC 9112 section 6.3); hyper drops Content-Length"),
    ("te-bare-lf-hidden", Kind::Stricter, "CRLF only"),
    ("te-chunked-chunked", Kind::Stricter, "chunked is applied once (RFC 9112 section 6.1)"),
    ("te-chunked-twice", Kind::Stricter, "chunked is applied once (RFC 9112 section 6.1)"),
    ("te-comma-chunked", Kind::Stricter, "an empty member: others read it as an unknown coding"),
    ("te-gzip-chunked", Kind::Stricter, "another coding would have to be undone or passed on: 501"),
    ("three-blank-lines-before", Kind::Stricter, "two blank lines are tolerated (RFC 9112 section 2.2 asks for one)"),
    ("trace-body", Kind::Stricter, "TRACE has no content (RFC 9110 section 9.3.8)"),
];

#[rustfmt::skip]
const RESPONSES: &[Row] = &[
    ("blank-line-before", Kind::Stricter, "bytes between two answers belong to neither"),
    ("chunked-size-space", Kind::Stricter, "no whitespace around the size (RFC 9112 section 7.1)"),
    ("chunked-trailer-set-cookie", Kind::Stricter, "identity is read from the head only (RFC 9110 section 6.5.1)"),
    ("cl-and-te", Kind::Stricter, "both together are an attack (RFC 9112 section 6.3); hyper drops Content-Length"),
    ("cl-list", Kind::Stricter, "one Content-Length, no list (RFC 9112 section 6.3 allows either)"),
    ("cl-twice-equal", Kind::Stricter, "a repeated Content-Length, even an equal one (RFC 9112 section 6.3 allows either)"),
    ("field-bare-lf", Kind::Stricter, "CRLF only"),
    ("line-bare-lf", Kind::Stricter, "CRLF only"),
    ("reason-obs-text", Kind::Other, "the reason stays as received; hyper drops one that is not ASCII"),
    ("te-chunked-gzip", Kind::Stricter, "chunked is the final coding; hyper reads until the connection closes"),
    ("te-chunked-twice", Kind::Stricter, "chunked is applied once (RFC 9112 section 6.1)"),
    ("te-gzip", Kind::Stricter, "a coding that nobody here undoes; hyper reads until the connection closes"),
    ("te-gzip-chunked", Kind::Stricter, "a coding that nobody here undoes"),
];

/// Compares all files of a folder; every difference must be in `table`, and every row of it be needed.
fn compare(folder: &str, table: &[Row], read: impl Fn(&str, &[u8]) -> (Reading, Reading)) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(folder);
    let mut names: Vec<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    assert!(names.len() > 50, "the corpus is gone: {} files in {}", names.len(), folder.display());
    let mut wrong = String::new();
    for name in &names {
        let bytes = std::fs::read(folder.join(format!("{name}.http"))).unwrap();
        let (ours, hyper) = read(name, &bytes);
        let expected = table.iter().find(|row| row.0 == name).map(|row| row.1);
        let found = ours.difference(&hyper);
        if found != expected {
            writeln!(
                wrong,
                "{name}: expected {expected:?}, found {found:?}\n  ours  {ours:?}\n  hyper {hyper:?}"
            )
            .unwrap();
        }
    }
    for row in table.iter().filter(|row| !names.iter().any(|name| name == row.0)) {
        writeln!(wrong, "{}: no such file", row.0).unwrap();
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn requests_are_read_as_hyper_reads_them() {
    compare("requests", REQUESTS, |_, bytes| (ours::requests(bytes), oracle::requests(bytes)));
}

#[test]
fn responses_are_read_as_hyper_reads_them() {
    compare("responses", RESPONSES, |name, bytes| {
        let method = match name.split('-').next() {
            Some("head") => "HEAD",
            Some("connect") => "CONNECT",
            _ => "GET",
        };
        (ours::response(method, bytes), oracle::response(method, bytes))
    });
}
