//! The TLS of the kit against itself: client, server and certificates.

use rustls::{HandshakeKind, ProtocolVersion};

use super::*;
use crate::{Origin, Reply};

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n";

#[tokio::test]
async fn an_origin_is_reached_through_tls() {
    let origin = Origin::start(Reply::ok("hello")).await;
    let authority = Authority::new("test");
    let mut config = server_config(&authority.leaf(&["shop.example", "127.0.0.1"]));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let server = Server::before(origin.address(), config).await;
    let client = Client::trusting(&authority).offering(&["h2", "http/1.1"]);
    let mut wire = client.connect(server.address(), "shop.example").await;
    assert_eq!(wire.send(REQUEST).await.answer().await.text(), "hello");
    assert_eq!(wire.session().protocol_version(), Some(ProtocolVersion::TLSv1_3));
    let (name, protocol) = (Some("shop.example".into()), Some("http/1.1".into()));
    assert_eq!(server.handshakes(), [Handshake::Done { name, protocol, certificate: None }]);
    let mut again = client.connect(server.address(), "shop.example").await;
    assert_eq!(again.send(REQUEST).await.answer().await.text(), "hello");
    assert_eq!(again.session().handshake_kind(), Some(HandshakeKind::Resumed));
}

#[tokio::test]
async fn a_wrong_name_an_expired_certificate_and_a_stranger_are_refused() {
    let origin = Origin::start(Reply::ok("hello")).await;
    let (authority, stranger) = (Authority::new("test"), Authority::new("stranger"));
    let cases = [
        (authority.leaf(&["other.example"]), "NotValidForName"),
        (authority.expired(&["shop.example"]), "Expired"),
        (stranger.leaf(&["shop.example"]), "UnknownIssuer"),
    ];
    for (leaf, why) in cases {
        let server = Server::before(origin.address(), server_config(&leaf)).await;
        let refused = Client::trusting(&authority).try_connect(server.address(), "shop.example").await;
        let said = format!("{:?}", refused.expect_err(why));
        assert!(said.contains(why), "{said}");
    }
}

#[tokio::test]
async fn a_client_shows_its_certificate() {
    let origin = Origin::start(Reply::ok("hello")).await;
    let (authority, clients) = (Authority::new("test"), Authority::new("clients"));
    let leaf = authority.leaf(&["shop.example"]);
    let server = Server::before(origin.address(), server_config_for_clients(&leaf, &clients)).await;
    let known = clients.leaf(&["client.example"]);
    let versions = [&rustls::version::TLS12];
    let client = Client::speaking(&versions, &authority);
    assert!(client.try_connect(server.address(), "shop.example").await.is_err());
    let mut wire = client.presenting(&known).connect(server.address(), "shop.example").await;
    assert_eq!(wire.send(REQUEST).await.answer().await.text(), "hello");
    let seen = server.handshakes();
    assert!(matches!(&seen[0], Handshake::Failed(_)), "{seen:?}");
    assert!(matches!(&seen[1], Handshake::Done { certificate: Some(shown), .. } if *shown == known.der()));
}
