//! WebSocket through tunnels, with clients and servers that we did not write, and peers that do not know how.

use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use sluice_testkit::{Origin, Reply, Wire, http, within};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::gateway;
use super::raw::Raw;
use crate::connect::VERSIONS;
use crate::connect::child::Connector;
use crate::websocket::answer_to_handshake;

/// A server that says which path it was asked for, and then echoes messages until it is told to close.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    address
}

async fn serve(stream: TcpStream) {
    let mut path = String::new();
    #[expect(clippy::result_large_err, reason = "tungstenite's signature")]
    let see = |request: &Request, response: Response| {
        path = request.uri().to_string();
        Ok(response)
    };
    let Ok(mut socket) = tokio_tungstenite::accept_hdr_async(stream, see).await else { return };
    let _ = socket.send(Message::text(path)).await;
    while let Some(Ok(message)) = socket.next().await {
        if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn websockets_of_any_message_come_through_both_versions() {
    let echo = echo().await;
    for version in VERSIONS {
        let gateway = gateway("").await;
        let connector = Connector::publish(gateway.address("tunnels"), echo, version).await;
        let url = format!("ws://{}/shop/chat?a=b", gateway.address("web"));
        let mut sockets = Vec::new();
        // More than there are tunnels, all at once.
        for _ in 0..5 {
            let connected = within("the handshake", tokio_tungstenite::connect_async(&url)).await;
            let (mut socket, response) = connected.unwrap();
            assert_eq!(response.status(), 101, "{version}");
            let first = within("the path", socket.next()).await.unwrap().unwrap();
            assert_eq!(first, Message::text("/shop/chat?a=b"));
            sockets.push(socket);
        }
        let binary: Vec<u8> = (0..1_000_000).map(|n| (n % 251) as u8).collect();
        for mut socket in sockets {
            for message in [Message::text("héllo"), Message::binary(binary.clone()), Message::text("")] {
                socket.send(message.clone()).await.unwrap();
                assert_eq!(within("the echo", socket.next()).await.unwrap().unwrap(), message, "{version}");
            }
            socket.send(Message::Ping("p".into())).await.unwrap();
            assert_eq!(within("the pong", socket.next()).await.unwrap().unwrap(), Message::Pong("p".into()));
            let farewell = CloseFrame { code: CloseCode::Library(4321), reason: "enough".into() };
            socket.close(Some(farewell.clone())).await.unwrap();
            let last = within("the close", socket.next()).await.unwrap().unwrap();
            assert_eq!(last, Message::Close(Some(farewell)), "{version}");
        }
        assert_eq!(connector.health().await["services"]["shop"]["requests"]["total"], 5, "{version}");
    }
}

#[tokio::test]
async fn an_ordinary_answer_to_a_handshake_is_passed_on() {
    let origin = Origin::start(Reply::status(403).body("not here")).await;
    for version in VERSIONS {
        let gateway = gateway("").await;
        let _connector = Connector::publish(gateway.address("tunnels"), origin.address(), version).await;
        let answer = answer_to_handshake(gateway.address("web"), "/shop/chat").await;
        assert_eq!((answer.status, answer.text().as_str()), (403, "not here"));
    }
}

#[tokio::test]
async fn a_connector_of_3_0_without_the_extension_gets_no_handshake() {
    let gateway = gateway("").await;
    let fields = [
        ("CrankerProtocol", "1.0"),
        ("Sec-WebSocket-Protocol", "cranker_3.0, cranker_1.0"),
        ("Route", "shop"),
    ];
    let (mut raw, answer) = Raw::ask(gateway.address("tunnels"), "/register/", &fields).await;
    assert_eq!((answer.status, answer.field("crankerextensions")), (101, None));
    let url = format!("ws://{}/shop/chat", gateway.address("web"));
    let refused = within("an answer", tokio_tungstenite::connect_async(url)).await.unwrap_err();
    let Error::Http(answer) = refused else { panic!("{refused:?}") };
    assert_eq!(answer.status().as_u16(), 502);
    // The tunnel is as good as before, and the first that comes through it is the next request.
    let mut client = Wire::connect(gateway.address("web")).await;
    client.send("GET /shop/plain HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (_, frame) = raw.frame().await;
    assert_eq!((frame[0], frame[1]), (1, 5), "one HEADER frame that ends the stream");
    assert!(frame[6..].starts_with(b"GET /shop/plain HTTP/1.1\n"), "{frame:?}");
}

#[tokio::test]
async fn a_route_that_allows_no_upgrade_passes_an_ordinary_request() {
    let origin = Origin::start(Reply::ok("plain")).await;
    let gateway = sluice_testkit::Gateway::start(&crate::connect::document(0, "")).await;
    for version in VERSIONS {
        let connector = Connector::publish(gateway.address("tunnels"), origin.address(), version).await;
        let fields = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")];
        let answer = http::get_with(gateway.address("web"), "/shop/chat", &fields).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "plain"), "{version}");
        assert_eq!(origin.last().field("upgrade"), None);
        drop(connector);
    }
}

mod with_peers {
    use sluice_testkit::Program;

    use super::*;

    /// A server and a client in one, of the library that most of Python uses.
    const SCRIPT: &str = "
import asyncio, sys, websockets

async def serve(socket):
    async for message in socket:
        await socket.send(message)

async def main():
    if sys.argv[1] == 'serve':
        async with websockets.serve(serve, '127.0.0.1', int(sys.argv[2]), max_size=None):
            print('ready')
            await asyncio.Future()
    async with websockets.connect(sys.argv[2], max_size=None) as socket:
        for message in ['text', 'h\\u00e9llo' * 1000, b'x' * 300000]:
            await socket.send(message)
            assert await socket.recv() == message
        await (await socket.ping())
    print('closed', socket.close_code)

asyncio.run(main())
";

    #[tokio::test]
    async fn pythons_websockets_speak_through_both_versions() {
        let python = |words: &[&str]| {
            Program::at("/usr/bin/python3").arguments([&["-u", "-c", SCRIPT][..], words].concat())
        };
        let port = sluice_testkit::free_port();
        let server = python(&["serve", &port.to_string()]);
        let _server = sluice_testkit::Gateway::launch(&server, sluice_testkit::Scratch::new()).await;
        for version in VERSIONS {
            let gateway = gateway("").await;
            let target = SocketAddr::from(([127, 0, 0, 1], port));
            let _connector = Connector::publish(gateway.address("tunnels"), target, version).await;
            let url = format!("ws://{}/shop/chat", gateway.address("web"));
            let ended = python(&["connect", &url]).finish().await;
            assert_eq!(ended.stdout.trim(), "closed 1000", "{version}: {}", ended.stderr);
        }
    }
}
