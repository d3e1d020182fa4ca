//! HTTP/2 towards endpoints over TLS: what ALPN agrees on is spoken.

use sluice_testkit::tls::{Authority, Handshake, Server, server_config};
use sluice_testkit::{Gateway, Origin as Http1Origin, Reply, Scratch, http as http1};

use super::origin::{Origin, play};
use crate::setup::Lines;

/// An authority that the gateway shall trust, and where its certificate lies.
struct Trust {
    authority: Authority,
    scratch: Scratch,
}

impl Trust {
    fn new() -> Trust {
        let (authority, scratch) = (Authority::new("Tests"), Scratch::new());
        authority.write(&scratch, "ca");
        Trust { authority, scratch }
    }

    /// A TLS server for 127.0.0.1 before an origin, which agrees on one of these protocols.
    async fn server(&self, origin: std::net::SocketAddr, protocols: &[&str]) -> Server {
        let mut config = server_config(&self.authority.leaf(&["127.0.0.1"]));
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Server::before(origin, config).await
    }

    async fn gateway(&self, endpoint: std::net::SocketAddr, upstream: &str) -> Gateway {
        let ca = self.scratch.file("ca.crt").display().to_string();
        let upstream = format!("tls = {{ ca = \"{ca}\", sni = \"127.0.0.1\" }}\n{upstream}");
        Lines { upstream: &upstream, ..Lines::default() }.start(&[endpoint]).await
    }
}

fn agreed(server: &Server) -> Vec<Option<String>> {
    let protocol = |handshake: &Handshake| match handshake {
        Handshake::Done { protocol, .. } => protocol.clone(),
        Handshake::Failed(why) => panic!("{why}"),
    };
    server.handshakes().iter().map(protocol).collect()
}

#[tokio::test]
async fn http_2_is_spoken_where_the_endpoint_speaks_it() {
    let origin = Origin::start(|stream| play(async move { stream.answer(200, "two") })).await;
    let trust = Trust::new();
    let server = trust.server(origin.address(), &["h2", "http/1.1"]).await;
    let gateway = trust.gateway(server.address(), "").await;
    for _ in 0..3 {
        assert_eq!(http1::get(gateway.address("web"), "/").await.text(), "two");
    }
    assert_eq!(origin.last().uri.scheme_str(), Some("https"));
    assert_eq!(agreed(&server), [Some("h2".to_owned())], "one connection carries all");
}

#[tokio::test]
async fn http_1_is_spoken_where_the_endpoint_speaks_nothing_else() {
    let origin = Http1Origin::start(Reply::ok("one")).await;
    let trust = Trust::new();
    for protocols in [&["http/1.1"][..], &[]] {
        let server = trust.server(origin.address(), protocols).await;
        let gateway = trust.gateway(server.address(), "").await;
        for _ in 0..3 {
            assert_eq!(http1::get(gateway.address("web"), "/").await.text(), "one");
        }
        assert_eq!(agreed(&server), [protocols.first().map(|&protocol| protocol.to_owned())]);
    }
}

#[tokio::test]
async fn http_1_is_spoken_where_the_document_says_so() {
    let origin = Http1Origin::start(Reply::ok("one")).await;
    let trust = Trust::new();
    let server = trust.server(origin.address(), &["h2", "http/1.1"]).await;
    let gateway = trust.gateway(server.address(), "protocol = \"http1\"").await;
    assert_eq!(http1::get(gateway.address("web"), "/").await.text(), "one");
    assert_eq!(agreed(&server), [Some("http/1.1".to_owned())]);
}

#[tokio::test]
async fn an_endpoint_that_does_not_speak_http_2_is_told_from_one_that_cannot_be_trusted() {
    let origin = Http1Origin::start(Reply::ok("one")).await;
    let trust = Trust::new();
    let server = trust.server(origin.address(), &["http/1.1"]).await;
    let gateway = trust.gateway(server.address(), "protocol = \"http2\"").await;
    let answer = http1::get(gateway.address("web"), "/").await;
    assert_eq!((answer.status, answer.code().as_str()), (502, "upstream-tls-failed"));
    let stranger = Trust::new();
    let gateway = stranger.gateway(server.address(), "").await;
    let answer = http1::get(gateway.address("web"), "/").await;
    assert_eq!((answer.status, answer.code().as_str()), (502, "upstream-untrusted"));
}

#[tokio::test]
async fn health_checks_go_over_tls_too() {
    let origin = Origin::start(|stream| {
        play(async move {
            let well = stream.request.uri().path() == "/healthz";
            stream.answer(if well { 204 } else { 200 }, if well { "" } else { "served" });
        })
    })
    .await;
    let trust = Trust::new();
    let server = trust.server(origin.address(), &["h2"]).await;
    let check = "protocol = \"http2\"\nhealth = { http = { path = \"/healthz\", every = \"20ms\", timeout = \"10s\", \
                 status = [204] } }";
    let gateway = trust.gateway(server.address(), check).await;
    origin.wait_streams(3).await;
    assert_eq!(http1::get(gateway.address("web"), "/").await.text(), "served");
    assert!(!gateway.stderr().contains("unhealthy"), "{}", gateway.stderr());
}

mod with_peers {
    use sluice_testkit::{Peer, free_port};

    use super::*;

    #[tokio::test]
    async fn nginx_is_spoken_to_over_tls_and_without() {
        let trust = Trust::new();
        let (chain, key) = trust.authority.leaf(&["127.0.0.1"]).write(&trust.scratch, "nginx");
        let (secure, plain) = (free_port(), free_port());
        let server = format!(
            "listen 127.0.0.1:{secure} ssl http2;\nlisten 127.0.0.1:{plain} http2;\n\
             ssl_certificate {};\nssl_certificate_key {};\n\
             location / {{ return 200 \"$server_protocol $scheme $content_length\"; }}",
            chain.display(),
            key.display()
        );
        let _nginx = Peer::nginx(&server).await;
        let gateway = trust.gateway(([127, 0, 0, 1], secure).into(), "").await;
        let answer = http1::post(gateway.address("web"), "/", "x".repeat(20_000)).await;
        assert_eq!(answer.text(), "HTTP/2.0 https 20000");
        let lines = Lines { upstream: "protocol = \"http2\"", ..Lines::default() };
        let gateway = lines.start(&[([127, 0, 0, 1], plain).into()]).await;
        assert_eq!(http1::get(gateway.address("web"), "/").await.text(), "HTTP/2.0 http ");
    }
}
