//! The answer to a failure: problem+json for programs, a short page for people, a status for gRPC.
//!
//! Promise: it holds the failure's code and public sentence and the request id, and nothing else that we
//! know; whoever has one of them finds the log line.

use bytes::Bytes;
use serde::Serialize;
use sluice_http::{Body, NameId, RequestHead, Response, ResponseHead, grpc, reason_of};

use super::forwarded::PSEUDONYM;
use crate::exchange::{Exchange, GrpcWeb};
use crate::failure::{Failure, Row};
use crate::filter::grpc_web;

/// In which form the client reads answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// RFC 9457.
    #[default]
    ProblemJson,
    /// A page, for clients that like HTML better than JSON: browsers.
    Html,
    /// A gRPC status, in a head without a body (Trailers-Only).
    Grpc,
    /// A gRPC status as gRPC-Web has it, in the body, whether or not the request was translated.
    GrpcWeb(GrpcWeb),
}

impl Form {
    /// The form that suits a request. To be asked before its head is given away.
    pub fn of(head: &RequestHead) -> Form {
        if let Some(wanted) = grpc_web::wanted(head) {
            return Form::GrpcWeb(wanted);
        }
        if grpc::is_grpc(&head.fields) {
            return Form::Grpc;
        }
        let mut likes = Likes::default();
        for line in head.fields.get_all(NameId::Accept).filter_map(|line| std::str::from_utf8(line).ok()) {
            line.split(',').for_each(|range| likes.read(range));
        }
        match likes.html > likes.json {
            true => Form::Html,
            false => Form::ProblemJson,
        }
    }
}

/// How much a client likes HTML, named, and JSON, named or as one of all (RFC 9110 section 12.5.1), in
/// thousandths.
#[derive(Default)]
struct Likes {
    html: u16,
    json: u16,
}

impl Likes {
    fn read(&mut self, range: &str) {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or("");
        let weight = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
        let thousandths = weight.map_or(1000, |text| text.parse::<f32>().map_or(0, |q| (q * 1000.0) as u16));
        let is = |name: &str| kind.eq_ignore_ascii_case(name);
        if is("text/html") || is("application/xhtml+xml") {
            self.html = self.html.max(thousandths);
        } else if is("*/*") || is("application/*") || is("application/json") || is("application/problem+json")
        {
            self.json = self.json.max(thousandths);
        }
    }
}

/// The answer to a failure. The caller closes the client's connection where the failure's row says so.
pub fn answer(failure: Failure, exchange: &Exchange, form: Form) -> Response {
    let row = failure.row();
    let form = match (form, exchange.grpc_web) {
        // The head the form was read from has been translated since.
        (Form::Grpc, Some(wanted)) => Form::GrpcWeb(wanted),
        (form, _) => form,
    };
    let is_grpc = matches!(form, Form::Grpc | Form::GrpcWeb(_));
    let mut head = ResponseHead::new(if is_grpc { 200 } else { row.status });
    let body = match form {
        Form::ProblemJson => {
            head.fields.append(NameId::ContentType, b"application/problem+json");
            problem(row, exchange)
        }
        Form::Html => {
            head.fields.append(NameId::ContentType, b"text/html; charset=utf-8");
            page(row, exchange)
        }
        Form::Grpc | Form::GrpcWeb(_) => {
            head.fields.append(NameId::ContentType, b"application/grpc");
            failure.tell_grpc(&mut head.fields);
            Vec::new()
        }
    };
    append_fields(failure, row, exchange, &mut head);
    let body = if body.is_empty() { Body::Empty } else { Body::Full(Bytes::from(body)) };
    let mut response = Response { head, body };
    if let Form::GrpcWeb(wanted) = form {
        grpc_web::to_web(&mut response, wanted);
    }
    response
}

fn append_fields(failure: Failure, row: &Row, exchange: &Exchange, head: &mut ResponseHead) {
    let fields = &mut head.fields;
    fields.append(NameId::CacheControl, b"no-store");
    // RFC 9209 section 2: our name, and parameters of a structured field.
    let mut status = String::with_capacity(80);
    status.push_str(PSEUDONYM);
    if !row.proxy_status.is_empty() {
        status.push_str("; error=");
        status.push_str(row.proxy_status);
    }
    status.push_str("; details=\"");
    status.push_str(row.code);
    status.push('"');
    fields.append(NameId::ProxyStatus, status.as_bytes());
    if !exchange.request_id.is_empty() {
        fields.append(NameId::XRequestId, exchange.request_id.as_bytes());
    }
    match failure {
        // It must be there, even when it is empty (RFC 9110 section 15.5.6).
        Failure::MethodNotAllowed => fields.append(NameId::Allow, exchange.allow.as_bytes()),
        Failure::Overloaded
        | Failure::RateLimited
        | Failure::LimitUnavailable
        | Failure::TunnelAddressLimit
        | Failure::TunnelRouteLimit
        | Failure::TunnelRoutesLimit
        | Failure::Draining => {
            fields.append(NameId::RetryAfter, b"1");
        }
        Failure::BreakerOpen => {
            fields.append(NameId::RetryAfter, exchange.retry_after.max(1).to_string().as_bytes());
        }
        // Without a challenge the client is not told which credentials would do; then there is no field.
        Failure::TunnelNotWebsocket => {
            fields.append(NameId::Upgrade, b"websocket");
            fields.append(NameId::SecWebSocketVersion, b"13");
        }
        Failure::Unauthenticated | Failure::TunnelTokenMissing if !exchange.challenge.is_empty() => {
            fields.append(NameId::WwwAuthenticate, exchange.challenge.as_bytes());
        }
        Failure::ProxyUnauthenticated if !exchange.challenge.is_empty() => {
            fields.append(NameId::ProxyAuthenticate, exchange.challenge.as_bytes());
        }
        _ => {}
    }
}

/// RFC 9457 section 3.1, and our code.
#[derive(Serialize)]
struct Problem<'a> {
    r#type: &'a str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    instance: &'a str,
    code: &'a str,
}

fn problem(row: &Row, exchange: &Exchange) -> Vec<u8> {
    let problem = Problem {
        // "about:blank": the status says what kind of problem it is, and the title is its phrase.
        r#type: "about:blank",
        title: title(row),
        status: row.status,
        detail: row.public,
        instance: &exchange.request_id,
        code: row.code,
    };
    // Strings and a number always serialise.
    serde_json::to_vec(&problem).unwrap_or_default()
}

fn title(row: &Row) -> &'static str {
    match reason_of(row.status) {
        "" => row.code,
        reason => reason,
    }
}

fn page(row: &Row, exchange: &Exchange) -> Vec<u8> {
    let id: String = exchange.request_id.chars().filter(|c| !matches!(c, '<' | '>' | '&' | '"')).collect();
    let (status, title, sentence, code) = (row.status, title(row), row.public, row.code);
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{status} {title}</title></head>\n\
         <body><h1>{status} {title}</h1><p>{sentence}</p><p>{code} <small>{id}</small></p></body></html>\n"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::filter::fixture;

    fn form(fields: &[(NameId, &str)]) -> Form {
        let mut head = fixture::request("GET", "/").head;
        for (name, value) in fields {
            head.fields.append(*name, value.as_bytes());
        }
        Form::of(&head)
    }

    fn body(response: &Response) -> Cow<'_, str> {
        match &response.body {
            // The first bytes of a gRPC-Web frame are no text.
            Body::Full(bytes) => String::from_utf8_lossy(bytes),
            _ => Cow::Borrowed(""),
        }
    }

    #[test]
    fn the_form_follows_accept_and_content_type() {
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8";
        for (accept, expected) in [
            ("*/*", Form::ProblemJson),
            ("text/html", Form::Html),
            (browser, Form::Html),
            ("text/html, application/json", Form::ProblemJson),
            ("text/html;q=0.5, */*", Form::ProblemJson),
            ("text/html;q=0", Form::ProblemJson),
            ("text/html;q=x", Form::ProblemJson),
            ("text/plain", Form::ProblemJson),
        ] {
            assert_eq!(form(&[(NameId::Accept, accept)]), expected, "{accept}");
        }
        assert_eq!(form(&[]), Form::ProblemJson);
        for (content_type, expected) in [
            ("application/grpc", Form::Grpc),
            ("application/grpc+proto", Form::Grpc),
            ("application/grpc-web", Form::GrpcWeb(GrpcWeb::Binary)),
            ("application/grpc-web-text+proto", Form::GrpcWeb(GrpcWeb::Text)),
            ("application/grpcs", Form::ProblemJson),
        ] {
            assert_eq!(form(&[(NameId::ContentType, content_type)]), expected, "{content_type}");
        }
    }

    #[test]
    fn problem_json_has_code_sentence_and_request_id() {
        let response = answer(Failure::NoEndpoint, &fixture::exchange("/"), Form::ProblemJson);
        assert_eq!(response.head.status, 503);
        assert_eq!(
            body(&response),
            r#"{"type":"about:blank","title":"Service Unavailable","status":503,"detail":"The service is not available.","instance":"r-1","code":"no-endpoint"}"#
        );
        for (name, expected) in [
            ("Content-Type", "application/problem+json"),
            ("Cache-Control", "no-store"),
            ("Proxy-Status", "sluice; error=destination_unavailable; details=\"no-endpoint\""),
            ("X-Request-Id", "r-1"),
        ] {
            assert_eq!(fixture::values(&response.head.fields, name), [expected], "{name}");
        }
    }

    #[test]
    fn allow_and_retry_after_stand_where_they_belong() {
        let mut exchange = fixture::exchange("/");
        exchange.allow = "GET, HEAD".into();
        for &failure in Failure::ALL {
            let fields = answer(failure, &exchange, Form::ProblemJson).head.fields;
            assert_eq!(fields.contains(NameId::Allow), failure == Failure::MethodNotAllowed, "{failure:?}");
            let wait = [
                Failure::Overloaded,
                Failure::RateLimited,
                Failure::LimitUnavailable,
                Failure::TunnelAddressLimit,
                Failure::TunnelRouteLimit,
                Failure::TunnelRoutesLimit,
                Failure::Draining,
            ];
            let waits = wait.contains(&failure) || failure == Failure::BreakerOpen;
            assert_eq!(fields.contains(NameId::RetryAfter), waits, "{failure:?}");
        }
        exchange.retry_after = 7;
        let fields = answer(Failure::BreakerOpen, &exchange, Form::ProblemJson).head.fields;
        assert_eq!(fields.get(NameId::RetryAfter), Some(&b"7"[..]));
    }

    #[test]
    fn no_form_of_any_failure_shows_internal_text() {
        for &failure in Failure::ALL {
            let row = failure.row();
            assert!(row.public.bytes().all(|byte| byte.is_ascii() && byte != b'%'), "{}", row.code);
            for form in [Form::ProblemJson, Form::Html, Form::Grpc, Form::GrpcWeb(GrpcWeb::Binary)] {
                let response = answer(failure, &fixture::exchange("/"), form);
                let shown: Vec<&[u8]> = response.head.fields.iter().map(|(_, _, value)| value).collect();
                let shown = format!("{} {}", String::from_utf8_lossy(&shown.join(&b'\n')), body(&response));
                assert!(shown.contains(row.code) && shown.contains(row.public), "{shown}");
                assert!(!shown.contains(row.private), "{shown}");
            }
        }
    }

    #[test]
    fn grpc_gets_a_status_in_a_head_without_body() {
        let response = answer(Failure::UpstreamTimeout, &fixture::exchange("/"), Form::Grpc);
        assert!(response.head.status == 200 && response.body.is_empty());
        assert_eq!(fixture::values(&response.head.fields, "grpc-status"), ["4"]);
        assert_eq!(
            fixture::values(&response.head.fields, "grpc-message"),
            ["The service did not answer in time."]
        );
    }

    #[test]
    fn every_failure_has_the_status_of_grpc_that_its_status_of_http_stands_for() {
        for failure in Failure::ALL.iter().copied() {
            let response = answer(failure, &fixture::exchange("/"), Form::Grpc);
            let told = fixture::values(&response.head.fields, "grpc-status").concat().parse::<u8>().unwrap();
            // CANCELLED 1, UNKNOWN 2, INVALID_ARGUMENT 3, DEADLINE_EXCEEDED 4, PERMISSION_DENIED 7,
            // RESOURCE_EXHAUSTED 8, FAILED_PRECONDITION 9, UNIMPLEMENTED 12, INTERNAL 13, UNAVAILABLE 14,
            // UNAUTHENTICATED 16.
            let expected: &[u8] = match failure.row().status {
                400 => &[3],
                401 | 407 => &[16],
                403 => &[7],
                404 | 405 | 501 | 505 => &[12],
                408 | 504 => &[4, 14],
                413 | 414 | 429 | 431 => &[8],
                417 | 421 | 426 => &[9],
                499 => &[1],
                500 => &[13],
                502 | 503 => &[13, 14],
                508 => &[9],
                other => panic!("{}: no status of gRPC is known for {other}", failure.code()),
            };
            assert!(expected.contains(&told), "{}: {told}", failure.code());
        }
    }

    #[test]
    fn grpc_web_gets_its_status_in_the_body_translated_or_not() {
        let mut translated = fixture::exchange("/");
        translated.grpc_web = Some(GrpcWeb::Binary);
        let untranslated = fixture::exchange("/");
        let form = Form::GrpcWeb(GrpcWeb::Binary);
        for (exchange, form) in [(&translated, Form::Grpc), (&translated, form), (&untranslated, form)] {
            let response = answer(Failure::UpstreamTimeout, exchange, form);
            assert_eq!(response.head.status, 200);
            assert_eq!(fixture::values(&response.head.fields, "content-type"), ["application/grpc-web"]);
            assert!(!response.head.fields.contains(NameId::GrpcStatus));
            let Body::Full(body) = &response.body else { panic!("{response:?}") };
            let text = "grpc-status: 4\r\ngrpc-message: The service did not answer in time.\r\n";
            assert_eq!((body[0], body[4] as usize, &body[5..]), (0x80, text.len(), text.as_bytes()));
        }
        let text = answer(Failure::UpstreamTimeout, &untranslated, Form::GrpcWeb(GrpcWeb::Text));
        assert_eq!(fixture::values(&text.head.fields, "content-type"), ["application/grpc-web-text"]);
        assert!(body(&text).starts_with("gAAAA"), "{}", body(&text));
    }

    #[test]
    fn a_page_cannot_be_written_into() {
        let mut exchange = fixture::exchange("/");
        exchange.request_id = "<script>".to_owned();
        let response = answer(Failure::Internal, &exchange, Form::Html);
        assert!(
            !body(&response).contains("<script") && body(&response).contains("500 Internal Server Error")
        );
    }
}
