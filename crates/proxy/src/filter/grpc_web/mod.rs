//! The `grpc_web` filter: gRPC-Web requests of browsers become gRPC, and the answers gRPC-Web again
//! (grpc/doc/PROTOCOL-WEB.md).
//!
//! Promise: bodies are translated while they stream, message by message or in whatever pieces they come, and
//! never buffered; a request of another content type passes untouched. Every answer to a gRPC-Web request that
//! is gRPC ends with a status the client can read, also when the endpoint's own was lost.

mod body;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_http::{FieldName, Fields, NameId, Request, RequestHead, Response, grpc};

use super::{Filter, Flow};
use crate::exchange::{Exchange, GrpcWeb};
use crate::failure::Failure;
use crate::problem::{At, Problems};
use crate::scene::Scene;

/// Translates gRPC-Web requests (`application/grpc-web`, `application/grpc-web-text`) to gRPC and their answers
/// back, so that browsers can call gRPC services. Other requests pass untouched. It has no settings: `{}`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Config {}

/// The `grpc_web` filter.
#[derive(Debug)]
pub struct Translate;

impl Filter for Translate {
    type Config = Config;
    const NAME: &'static str = "grpc_web";

    fn build(_config: &Config, _at: &At, _problems: &mut Problems) -> Option<Translate> {
        Some(Translate)
    }

    async fn on_request(
        &self,
        _scene: &Scene<'_>,
        exchange: &mut Exchange,
        request: &mut Request,
    ) -> Result<Flow, Failure> {
        let Some((sent, format)) = kind(content_type(&request.head.fields)) else {
            return Ok(Flow::Continue);
        };
        let content_type = [GRPC, format].concat();
        exchange.grpc_web = wanted(&request.head);
        let fields = &mut request.head.fields;
        fields.set(NameId::ContentType, &content_type);
        fields.set(NameId::Te, b"trailers");
        // What the client accepts is gRPC-Web; gRPC has no such field.
        fields.remove(NameId::Accept);
        if sent == GrpcWeb::Text {
            fields.remove(NameId::ContentLength);
            request.body = body::decoded(std::mem::take(&mut request.body));
        }
        Ok(Flow::Continue)
    }

    async fn on_response(&self, exchange: &mut Exchange, response: &mut Response) -> Result<(), Failure> {
        if let Some(wanted) = exchange.grpc_web {
            to_web(response, wanted);
        }
        Ok(())
    }
}

const GRPC: &[u8] = b"application/grpc";

fn content_type(fields: &Fields) -> &[u8] {
    fields.get(NameId::ContentType).unwrap_or(b"")
}

/// What follows `prefix` in a media type, which must end there or go on with a format or a parameter.
fn after<'a>(media_type: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = media_type.split_at_checked(prefix.len())?;
    let ends = matches!(rest.first(), None | Some(b'+' | b';' | b' '));
    (start.eq_ignore_ascii_case(prefix) && ends).then_some(rest)
}

/// Which gRPC-Web a media type is, and what follows: `+proto`, parameters.
fn kind(media_type: &[u8]) -> Option<(GrpcWeb, &[u8])> {
    let binary = after(media_type, b"application/grpc-web").map(|rest| (GrpcWeb::Binary, rest));
    binary.or_else(|| after(media_type, b"application/grpc-web-text").map(|rest| (GrpcWeb::Text, rest)))
}

/// Which gRPC-Web the client of a request wants as an answer: what Accept names first, else what it sends.
/// `None` when the request is not gRPC-Web.
pub fn wanted(head: &RequestHead) -> Option<GrpcWeb> {
    let (sent, _) = kind(content_type(&head.fields))?;
    let mut ranges = head.fields.get_all(NameId::Accept).flat_map(|line| line.split(|&byte| byte == b','));
    let named = ranges.find_map(|range| kind(range.trim_ascii()));
    Some(named.map_or(sent, |(wanted, _)| wanted))
}

/// Makes a gRPC answer a gRPC-Web one; any other is left as it is.
pub fn to_web(response: &mut Response, wanted: GrpcWeb) {
    let fields = &mut response.head.fields;
    let Some(format) = after(content_type(fields), GRPC) else { return };
    let name: &[u8] = match wanted {
        GrpcWeb::Binary => b"application/grpc-web",
        GrpcWeb::Text => b"application/grpc-web-text",
    };
    let content_type = [name, format].concat();
    fields.set(NameId::ContentType, &content_type);
    // The body gets longer, and the trailers become a part of it.
    fields.remove(NameId::ContentLength);
    fields.remove(NameId::Trailer);
    let status = take_status(fields, response.head.status);
    response.body = body::with_trailers(std::mem::take(&mut response.body), wanted, status);
}

/// Takes the status out of the head of a Trailers-Only answer, where scripts of another origin may not read
/// it; where there is none, the one that a client would make up (http-grpc-status-mapping.md). It counts
/// unless the trailers say otherwise.
fn take_status(fields: &mut Fields, http: u16) -> Fields {
    let mut status = Fields::new();
    match fields.get(NameId::GrpcStatus) {
        Some(value) => status.append(NameId::GrpcStatus, value),
        None => {
            status.append(NameId::GrpcStatus, grpc::status_of(http).to_string().as_bytes());
            status.append(NameId::GrpcMessage, b"The answer ended without a status.");
            return status;
        }
    }
    if let Some(value) = fields.get(NameId::GrpcMessage) {
        status.append(NameId::GrpcMessage, value);
    }
    fields.remove(NameId::GrpcStatus);
    fields.remove(NameId::GrpcMessage);
    if let Some(details) = FieldName::new("grpc-status-details-bin") {
        if let Some(value) = fields.get(&details) {
            status.append(&details, value);
        }
        fields.remove(&details);
    }
    status
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use bytes::Bytes;
    use sluice_http::{Body, BodyError, Frame, Source};

    use super::super::fixture::{exchange, name, request, response, stage, values};
    use super::*;

    /// A body that gives these frames, with a pause before each.
    struct Script(Vec<Option<Result<Frame, BodyError>>>);

    impl Source for Script {
        fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
            match self.0.pop() {
                None => Poll::Ready(None),
                Some(None) => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                Some(Some(frame)) => Poll::Ready(Some(frame)),
            }
        }

        fn length(&self) -> Option<u64> {
            Some(7)
        }
    }

    fn script(frames: Vec<Result<Frame, BodyError>>) -> Body {
        let paused = frames.into_iter().flat_map(|frame| [None, Some(frame)]);
        let mut frames: Vec<_> = paused.collect();
        frames.reverse();
        Body::Stream(Box::new(Script(frames)))
    }

    fn pieces(pieces: &[&[u8]]) -> Body {
        script(pieces.iter().map(|piece| Ok(Frame::Data(Bytes::copy_from_slice(piece)))).collect())
    }

    fn fields(list: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::new();
        list.iter().for_each(|(field, value)| fields.append(&name(field), value.as_bytes()));
        fields
    }

    /// All data frames of a body, none of which may be empty, and its end.
    fn drain(mut body: Body) -> (Vec<Vec<u8>>, Result<(), BodyError>) {
        let mut cx = Context::from_waker(Waker::noop());
        let mut data = Vec::new();
        loop {
            match body.poll_frame(&mut cx) {
                Poll::Pending => {}
                Poll::Ready(None) => return (data, Ok(())),
                Poll::Ready(Some(Err(error))) => return (data, Err(error)),
                Poll::Ready(Some(Ok(Frame::Data(piece)))) => {
                    assert!(!piece.is_empty(), "a data frame is never empty");
                    data.push(piece.to_vec());
                }
                Poll::Ready(Some(Ok(Frame::Trailers(_)))) => panic!("gRPC-Web has no trailers"),
            }
        }
    }

    fn web_request(content_type: &str, accept: &str, body: Body) -> Request {
        let mut request = request("POST", "/shop.Shop/Buy");
        request.head.fields.append(NameId::ContentType, content_type.as_bytes());
        request.head.fields.append(NameId::ContentLength, b"7");
        if !accept.is_empty() {
            request.head.fields.append(NameId::Accept, accept.as_bytes());
        }
        request.head.fields.append(NameId::GrpcTimeout, b"1S");
        request.body = body;
        request
    }

    fn grpc_response(head: &[(&str, &str)], body: Body) -> Response {
        let mut response = response(200);
        response.head.fields = fields(head);
        response.body = body;
        response
    }

    fn trailer_frame(text: &str) -> Vec<u8> {
        [&[0x80][..], &u32::try_from(text.len()).unwrap().to_be_bytes(), text.as_bytes()].concat()
    }

    async fn enter(request: &mut Request) -> Exchange {
        let mut exchange = exchange("/shop.Shop/Buy");
        assert!(matches!(
            Translate.on_request(&stage().scene(), &mut exchange, request).await,
            Ok(Flow::Continue)
        ));
        exchange
    }

    #[tokio::test(flavor = "local")]
    async fn a_grpc_web_request_becomes_grpc() {
        for (content_type, accept, expected, wanted) in [
            ("application/grpc-web", "", "application/grpc", GrpcWeb::Binary),
            ("application/grpc-web+proto", "*/*", "application/grpc+proto", GrpcWeb::Binary),
            ("application/grpc-web+json;q=1", "", "application/grpc+json;q=1", GrpcWeb::Binary),
            ("Application/gRPC-Web", "", "application/grpc", GrpcWeb::Binary),
            ("application/grpc-web-text", "application/grpc-web-text", "application/grpc", GrpcWeb::Text),
            ("application/grpc-web-text+proto", "", "application/grpc+proto", GrpcWeb::Text),
            (
                "application/grpc-web-text",
                "text/plain, application/grpc-web+proto",
                "application/grpc",
                GrpcWeb::Binary,
            ),
            ("application/grpc-web", "application/grpc-web-text+proto", "application/grpc", GrpcWeb::Text),
        ] {
            let mut request = web_request(content_type, accept, Body::Empty);
            let exchange = enter(&mut request).await;
            assert_eq!(exchange.grpc_web, Some(wanted), "{content_type} {accept}");
            let fields = &request.head.fields;
            assert_eq!(values(fields, "content-type"), [expected], "{content_type}");
            assert_eq!(values(fields, "te"), ["trailers"]);
            assert_eq!(
                (values(fields, "accept").len(), values(fields, "grpc-timeout")),
                (0, vec!["1S".to_owned()])
            );
        }
    }

    #[tokio::test(flavor = "local")]
    async fn another_request_passes_untouched() {
        for content_type in [
            "",
            "application/grpc",
            "application/grpc+proto",
            "application/grpc-webs",
            "application/grpc-web-texts",
            "text/plain",
        ] {
            let mut request =
                web_request(content_type, "text/html", Body::Full(Bytes::from_static(b"AAAAAA=")));
            let before = format!("{:?}", request.head.fields);
            let mut exchange = enter(&mut request).await;
            assert_eq!(format!("{:?}", request.head.fields), before, "{content_type}");
            assert!(matches!(&request.body, Body::Full(body) if body == "AAAAAA="));
            let mut answer =
                grpc_response(&[("content-type", "application/grpc"), ("grpc-status", "5")], Body::Empty);
            Translate.on_response(&mut exchange, &mut answer).await.unwrap();
            assert_eq!(values(&answer.head.fields, "grpc-status"), ["5"], "{content_type}");
        }
    }

    #[tokio::test(flavor = "local")]
    async fn a_text_request_is_decoded_however_it_is_cut_and_padded() {
        let message = b"\0\0\0\0\x06abcdef";
        let whole = STANDARD.encode(message).into_bytes();
        // As clients write that encode piece by piece: padding in the middle.
        let padded: Vec<u8> = [1, 2, 3, 4]
            .iter()
            .fold((Vec::new(), 0), |(mut out, at), length| {
                let end = if *length == 4 { message.len() } else { at + length };
                out.extend(STANDARD.encode(&message[at..end]).bytes());
                (out, end)
            })
            .0;
        for text in [whole, padded] {
            let cuts =
                (1..text.len()).flat_map(|first| (first..text.len()).map(move |second| (first, second)));
            for (first, second) in cuts {
                let cut = [&text[..first], &text[first..second], &text[second..]];
                let cut: Vec<&[u8]> = cut.into_iter().filter(|piece| !piece.is_empty()).collect();
                let mut request = web_request("application/grpc-web-text", "", pieces(&cut));
                enter(&mut request).await;
                assert!(values(&request.head.fields, "content-length").is_empty());
                assert_eq!(request.body.length(), None);
                let (data, end) = drain(request.body);
                assert_eq!((data.concat().as_slice(), end), (&message[..], Ok(())), "{first} {second}");
            }
        }
    }

    #[tokio::test(flavor = "local")]
    async fn broken_base64_breaks_the_body_off() {
        let texts = [
            "A", "AA", "AAA", "AAAA=", "AAAAA", "A===", "=AAA", "AA=A", "AAA=A", "AAA-", "AAA_", "AA A",
            "AAAA\n", "AB==", "AAB=",
        ];
        for text in texts {
            for step in 1..=text.len() {
                let body = pieces(&text.as_bytes().chunks(step).collect::<Vec<_>>());
                let mut request = web_request("application/grpc-web-text", "", body);
                enter(&mut request).await;
                assert_eq!(drain(request.body).1, Err(BodyError::Malformed), "{text:?} by {step}");
            }
        }
        for byte in (0..=255u8).filter(|byte| !byte.is_ascii_alphanumeric() && !b"+/=".contains(byte)) {
            let mut request = web_request("application/grpc-web-text", "", pieces(&[&[b'A', byte]]));
            enter(&mut request).await;
            assert_eq!(drain(request.body).1, Err(BodyError::Malformed), "{byte}");
        }
    }

    #[tokio::test(flavor = "local")]
    async fn a_binary_body_and_its_length_pass_untouched() {
        let mut request =
            web_request("application/grpc-web", "", Body::Full(Bytes::from_static(b"\0\0\0\0\x02hi")));
        enter(&mut request).await;
        assert_eq!(values(&request.head.fields, "content-length"), ["7"]);
        assert!(matches!(&request.body, Body::Full(body) if body == "\0\0\0\0\x02hi"));
    }

    #[tokio::test(flavor = "local")]
    async fn trailers_become_the_last_frame() {
        let frame = trailer_frame("grpc-status: 0\r\nx-sum: 3\r\n");
        for (wanted, expected) in [
            (GrpcWeb::Binary, vec![b"\0\0\0\0\x03a".to_vec(), b"bc".to_vec(), frame.clone()]),
            (
                GrpcWeb::Text,
                [&b"\0\0\0\0\x03a"[..], b"bc", &frame]
                    .map(|piece| STANDARD.encode(piece).into_bytes())
                    .to_vec(),
            ),
        ] {
            let body = script(vec![
                Ok(Frame::Data(Bytes::from_static(b"\0\0\0\0\x03a"))),
                Ok(Frame::Data(Bytes::from_static(b"bc"))),
                Ok(Frame::Trailers(fields(&[("Grpc-Status", "0"), ("X-Sum", "3")]))),
            ]);
            let head = [
                ("content-type", "application/grpc+proto"),
                ("content-length", "8"),
                ("trailer", "grpc-status"),
                ("x-a", "1"),
            ];
            let mut answer = grpc_response(&head, body);
            let mut exchange = exchange("/");
            exchange.grpc_web = Some(wanted);
            Translate.on_response(&mut exchange, &mut answer).await.unwrap();
            let text = if wanted == GrpcWeb::Text { "-text" } else { "" };
            assert_eq!(
                values(&answer.head.fields, "content-type"),
                [format!("application/grpc-web{text}+proto")]
            );
            assert_eq!((answer.head.fields.len(), answer.body.length()), (2, None));
            assert_eq!(drain(answer.body), (expected, Ok(())));
        }
    }

    #[test]
    fn a_trailers_only_answer_has_its_status_in_the_body() {
        for body in [Body::Empty, pieces(&[])] {
            let head = [
                ("content-type", "application/grpc"),
                ("grpc-status", "5"),
                ("grpc-message", "no%20such"),
                ("grpc-status-details-bin", "CAU"),
                ("x-a", "1"),
            ];
            let mut answer = grpc_response(&head, body);
            to_web(&mut answer, GrpcWeb::Binary);
            assert_eq!(answer.head.fields.len(), 2);
            let expected = "grpc-status: 5\r\ngrpc-message: no%20such\r\ngrpc-status-details-bin: CAU\r\n";
            assert_eq!(drain(answer.body), (vec![trailer_frame(expected)], Ok(())));
        }
    }

    #[test]
    fn an_answer_without_a_status_gets_one() {
        for (http, status) in [(200, 2), (503, 14), (401, 16)] {
            let trailers = Ok(Frame::Trailers(fields(&[("x-sum", "3")])));
            for (body, first) in [(Body::Empty, ""), (script(vec![trailers]), "x-sum: 3\r\n")] {
                let mut answer = grpc_response(&[("content-type", "application/grpc")], body);
                answer.head.set_status(http);
                to_web(&mut answer, GrpcWeb::Binary);
                let text = format!(
                    "{first}grpc-status: {status}\r\ngrpc-message: The answer ended without a status.\r\n"
                );
                assert_eq!(drain(answer.body), (vec![trailer_frame(&text)], Ok(())));
            }
        }
    }

    #[test]
    fn a_body_that_breaks_off_stays_broken() {
        let body = script(vec![Ok(Frame::Data(Bytes::from_static(b"x"))), Err(BodyError::Incomplete)]);
        let mut answer = grpc_response(&[("content-type", "application/grpc")], body);
        to_web(&mut answer, GrpcWeb::Binary);
        assert_eq!(drain(answer.body), (vec![b"x".to_vec()], Err(BodyError::Incomplete)));
    }

    #[test]
    fn what_is_not_grpc_is_left_as_it_is() {
        for content_type in ["text/html", "application/grpc-web+proto", "application/grpcs", ""] {
            let mut answer = response(502);
            answer.head.fields = fields(&[("content-type", content_type), ("content-length", "2")]);
            answer.body = Body::Full(Bytes::from_static(b"no"));
            to_web(&mut answer, GrpcWeb::Text);
            assert!(matches!(&answer.body, Body::Full(body) if body == "no"), "{content_type}");
            assert_eq!(values(&answer.head.fields, "content-length"), ["2"]);
        }
    }
}
