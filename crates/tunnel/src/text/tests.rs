//! Heads in every dialect.

use sluice_http::{Method, NameId, RequestHead, ResponseHead};

use super::*;

type Lines = Vec<(String, String)>;

fn request(text: &[u8]) -> Result<(String, Lines, Content), BadHead> {
    read_request(text, Marker::Written).map(|(head, content)| {
        (format!("{} {}", head.method_text(), head.target()), shown(&head.fields), content)
    })
}

fn shown(fields: &Fields) -> Lines {
    let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
    fields.iter().map(|(_, name, value)| (text(name), text(value))).collect()
}

fn fields(pairs: &[(&str, &str)]) -> Lines {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn response(text: &[u8]) -> Result<(u16, Lines, Option<u64>), BadHead> {
    read_response(text, Method::Get).map(|(head, length)| (head.status, shown(&head.fields), length))
}

#[test]
fn a_request_is_written_as_the_protocol_has_it() {
    let mut head = RequestHead::new("POST", "http://shop.example/a%20b?c=d");
    head.fields.append(NameId::Cookie, b"a=1");
    head.fields.append(name("X-Odd"), b"caf\xe9");
    head.fields.append(NameId::Cookie, b"b=2");
    head.fields.append(NameId::Connection, b"keep-alive, Upgrade");
    head.fields.append(NameId::Upgrade, b"websocket");
    head.fields.append(NameId::TransferEncoding, b"chunked");
    head.fields.append(NameId::Expect, b"100-continue");
    head.fields.append(NameId::Te, b"trailers");
    head.fields.append(NameId::ProxyAuthorization, b"secret");
    let text = write_request(&head, Content::Unknown, Upgrades::Dropped, Marker::Written);
    let expected = "POST /a%20b?c=d HTTP/1.1\nHost:shop.example\nX-Odd:caf\u{e9}\nCookie:a=1; b=2\n\n_1";
    assert_eq!(String::from_utf8(text).unwrap(), expected);
    let text = write_request(&head, Content::Length(0), Upgrades::Kept, Marker::Absent);
    assert!(text.ends_with(b"Content-Length:0\nConnection:Upgrade\nUpgrade:websocket\n\n"));
}

#[test]
fn the_marker_says_whether_content_follows() {
    let head = RequestHead::new("GET", "/");
    let text = |content| write_request(&head, content, Upgrades::Dropped, Marker::Written);
    assert!(text(Content::None).ends_with(b"\n\n_2"));
    assert!(text(Content::Length(0)).ends_with(b"\nContent-Length:0\n\n_2"));
    assert!(text(Content::Length(7)).ends_with(b"\nContent-Length:7\n\n_1"));
    assert!(text(Content::Unknown).ends_with(b"\n\n_1"));
}

#[test]
fn a_request_is_read_back() {
    let read = request(b"PUT /x HTTP/1.1\nHost:a\nX-A: b \nContent-Length:3\n\n_1").unwrap();
    let expected = fields(&[("Host", "a"), ("X-A", "b"), ("Content-Length", "3")]);
    assert_eq!(read, ("PUT /x".to_owned(), expected, Content::Length(3)));
    let content = |text: &[u8]| request(text).map(|(_, _, content)| content);
    assert_eq!(content(b"GET / HTTP/1.1\nContent-Length:0\n\n_2"), Ok(Content::None));
    assert_eq!(
        content(b"PUT / HTTP/1.1\ntransfer-encoding:chunked\ncontent-length:1\n\n_1"),
        Ok(Content::Unknown)
    );
}

#[test]
fn a_decoded_target_is_encoded_again() {
    let start = |text: &[u8]| request(text).map(|(start, ..)| start);
    assert_eq!(start(b"GET /a b c?d HTTP/1.1\n_2").unwrap(), "GET /a%20b%20c?d");
    assert_eq!(start("GET /\u{e9} HTTP/1.1\n_2".as_bytes()).unwrap(), "GET /%E9");
    assert_eq!(start(b"GET /\xff HTTP/1.1\n_2").unwrap(), "GET /%FF");
    assert_eq!(start(b"OPTIONS * HTTP/1.1\n\n_2").unwrap(), "OPTIONS *");
}

#[test]
fn fields_of_http2_and_lines_without_a_colon_are_skipped() {
    let (_, found, _) = request(b"GET / HTTP/1.1\n:method:GET\nnothing\nA:b\n\n_2").unwrap();
    assert_eq!(found, fields(&[("A", "b")]));
}

#[test]
fn a_malformed_request_is_refused() {
    let cases: &[(&[u8], BadHead)] = &[
        (b"", BadHead::NoMarker),
        (b"_1", BadHead::NoMarker),
        (b"GET / HTTP/1.1\n\n", BadHead::NoMarker),
        (b"GET / HTTP/1.1\n\n_3", BadHead::NoMarker),
        (b"GET / HTTP/1.1\nA:b_1", BadHead::NoMarker),
        (b"\n_1", BadHead::StartLine),
        (b"GET\n_1", BadHead::StartLine),
        (b"GET /\n_1", BadHead::StartLine),
        (b"GET / HTTP/2\n_1", BadHead::StartLine),
        (b"G@T / HTTP/1.1\n_1", BadHead::StartLine),
        (b" / HTTP/1.1\n_1", BadHead::StartLine),
        (b"GET http://a/ HTTP/1.1\n_1", BadHead::Target),
        (b"CONNECT a:1 HTTP/1.1\n_1", BadHead::Target),
        (b"GET * HTTP/1.1\n_1", BadHead::Target),
        (b"GET /#x HTTP/1.1\n_1", BadHead::Target),
        (b"GET /\0 HTTP/1.1\n_1", BadHead::Target),
        (b"GET /\r HTTP/1.1\n_1", BadHead::Target),
        (b"GET / HTTP/1.1\nA b:c\n_1", BadHead::Field),
        (b"GET / HTTP/1.1\nA:b\0\n_1", BadHead::Field),
        (b"GET / HTTP/1.1\nA:b\rc\n_1", BadHead::Field),
        (b"GET / HTTP/1.1\nContent-Length:+1\n_1", BadHead::Length),
        (b"GET / HTTP/1.1\nContent-Length:\n_1", BadHead::Length),
        (b"GET / HTTP/1.1\nContent-Length:1\nContent-Length:1\n_1", BadHead::Length),
        (b"GET / HTTP/1.1\nContent-Length:99999999999999999999\n_1", BadHead::Length),
    ];
    for (text, problem) in cases {
        assert_eq!(request(text), Err(*problem), "{}", text.escape_ascii());
    }
    let many = format!("GET / HTTP/1.1\n{}\n_2", "a:\n".repeat(LINES + 1));
    assert_eq!(request(many.as_bytes()), Err(BadHead::TooLarge));
}

#[test]
fn every_dialect_of_a_response_is_read() {
    let expected = Ok((200, fields(&[("a", "b"), ("c", "d:e")]), None));
    for text in [
        &b"HTTP/1.1 200 TODO\na:b\nc:d:e\n"[..],
        b"HTTP/1.1 200 OK\na:b\nc:d:e\n\n",
        b"HTTP/1.1 200 OK\na:b\nc:d:e",
        b"HTTP/1.1 200 OK\r\na: b\r\nc: d:e\r\n\r\n",
        b"HTTP/1.1 200 200 \nGET /x?y HTTP/1.1\na:b\nc:d:e\n",
        b"HTTP/1.1 200\nPOST http://h/x\na:b\n:status:200\nc:d:e\n",
        b"HTTP/1.1 200 many words here\n\na:b\n\nc:d:e",
    ] {
        assert_eq!(response(text), expected, "{}", text.escape_ascii());
    }
    assert_eq!(response(b"HTTP/1.1 204 \n"), Ok((204, vec![], Some(0))));
    assert_eq!(response(b"HTTP/1.1 200"), Ok((200, vec![], None)));
    let (head, length) = read_response(b"HTTP/1.1 200 OK\ncontent-length:7\n", Method::Head).unwrap();
    assert_eq!((head.fields.get(NameId::ContentLength), length), (Some(&b"7"[..]), Some(0)));
    let both = response(b"HTTP/1.1 200 OK\ntransfer-encoding:chunked\ncontent-length:7\n");
    assert_eq!(both, Ok((200, vec![], None)));
}

#[test]
fn a_malformed_response_is_refused() {
    let cases: &[(&[u8], BadHead)] = &[
        (b"", BadHead::StartLine),
        (b"nonsense", BadHead::StartLine),
        (b"HTTP/1.1", BadHead::Status),
        (b"HTTP/1.1 ", BadHead::Status),
        (b"HTTP/1.1  200", BadHead::Status),
        (b"HTTP/1.1 99", BadHead::Status),
        (b"HTTP/1.1 2000", BadHead::Status),
        (b"HTTP/1.1 100 Continue\n", BadHead::Status),
        (b"HTTP/1.1 200 OK\na:b\nc d:e\n", BadHead::Field),
        (b"HTTP/1.1 200 OK\na:b\rc\n", BadHead::Field),
        (b"HTTP/1.1 200 OK\ncontent-length:1, 1\n", BadHead::Length),
    ];
    for (text, problem) in cases {
        assert_eq!(response(text), Err(*problem), "{}", text.escape_ascii());
    }
}

#[test]
fn a_response_always_has_a_field_and_ends_in_lf() {
    assert_eq!(write_response(&ResponseHead::new(204)), b"HTTP/1.1 204 No Content\nConnection:close\n");
    let mut head = ResponseHead::new(200);
    head.fields.append(NameId::SetCookie, b"a=1");
    head.fields.append(NameId::TransferEncoding, b"chunked");
    head.fields.append(NameId::SetCookie, b"b=\xe9");
    let text = "HTTP/1.1 200 OK\nSet-Cookie:a=1\nSet-Cookie:b=\u{e9}\n";
    assert_eq!(write_response(&head), text.as_bytes());
    let mut head = ResponseHead::new(101);
    head.fields.append(NameId::Connection, b"Upgrade");
    head.fields.append(NameId::Upgrade, b"websocket");
    assert_eq!(
        write_response(&head),
        b"HTTP/1.1 101 Switching Protocols\nConnection:Upgrade\nUpgrade:websocket\n"
    );
}

#[test]
fn bytes_travel_as_latin_1_and_raw_bytes_are_taken_as_they_are() {
    let value = |text: &[u8]| response(text).unwrap().1.remove(0).1;
    assert_eq!(value(b"HTTP/1.1 200 OK\na:\xc3\xa9\n"), "\\xe9");
    assert_eq!(value(b"HTTP/1.1 200 OK\na:\xe9\n"), "\\xe9");
    assert_eq!(value("HTTP/1.1 200 OK\na:\u{20ac}\n".as_bytes()), "\\xe2\\x82\\xac");
    // A control character that only the mapping makes.
    assert_eq!(response("HTTP/1.1 200 OK\na:\u{85}\n".as_bytes()).unwrap().1[0].1, "\\x85");
}

#[test]
fn trailers_travel_and_what_is_none_is_dropped() {
    let mut trailers = Fields::new();
    trailers.append(name("Grpc-Status"), b"0");
    trailers.append(NameId::ContentLength, b"3");
    let text = write_trailers(&trailers);
    assert_eq!(text, b"Grpc-Status:0\n");
    assert_eq!(shown(&read_trailers(&text).unwrap()), fields(&[("Grpc-Status", "0")]));
    assert_eq!(read_trailers(b"a b:c\n").unwrap_err(), BadHead::Field);
}
