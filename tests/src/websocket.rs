//! WebSocket through the gateway, with clients and endpoints that we did not write; events as they come.

use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use sluice_testkit::{Answer, Gateway, ManualOrigin, Origin, Reply, Wire, within};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;

/// An endpoint that echoes messages until it is told to close.
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
    let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
    while let Some(Ok(message)) = socket.next().await {
        if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
            return;
        }
    }
}

/// What a client is answered that asks for a WebSocket there (RFC 6455 section 1.3). Not tungstenite: of an answer
/// that is no 101 it keeps only the part of the body that came with the head.
pub(crate) async fn answer_to_handshake(gateway: SocketAddr, path: &str) -> Answer {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    Wire::connect(gateway).await.send(request).await.answer().await
}

/// A gateway whose route /chat allows upgrades and whose others do not.
async fn gateway(endpoint: SocketAddr) -> Gateway {
    Gateway::start(&format!(
        "[process]\nadmin = {{ address = \"127.0.0.1:0\" }}\n\n[listeners.web]\naddress = \"127.0.0.1:0\"\n\n\
         [[routes]]\nname = \"chat\"\nmatch = {{ path_prefix = \"/chat\" }}\n\
         forward = {{ upstream = \"app\", upgrade = true }}\n\n\
         [[routes]]\nname = \"other\"\nforward = {{ upstream = \"app\" }}\n\n\
         [upstreams.app]\nendpoints = [\"{endpoint}\"]\n"
    ))
    .await
}

#[tokio::test]
async fn messages_of_any_kind_and_size_come_back_and_the_close_is_orderly() {
    let gateway = gateway(echo().await).await;
    let url = format!("ws://{}/chat", gateway.address("web"));
    let connected = within("the handshake", tokio_tungstenite::connect_async(url)).await;
    let (mut socket, response) = connected.unwrap();
    assert_eq!(response.status(), 101);
    let binary: Vec<u8> = (0..1_000_000).map(|n| (n % 251) as u8).collect();
    for message in [Message::text("héllo"), Message::binary(binary), Message::text("")] {
        socket.send(message.clone()).await.unwrap();
        assert_eq!(within("the echo", socket.next()).await.unwrap().unwrap(), message);
    }
    socket.send(Message::Ping("p".into())).await.unwrap();
    assert_eq!(within("the pong", socket.next()).await.unwrap().unwrap(), Message::Pong("p".into()));
    socket.close(None).await.unwrap();
    let last = within("the close", socket.next()).await.unwrap().unwrap();
    assert!(last.is_close(), "{last:?}");
}

#[tokio::test]
async fn an_upgrade_where_the_route_does_not_allow_it_is_an_ordinary_answer() {
    let origin = Origin::start(Reply::ok("plain")).await;
    let gateway = gateway(origin.address()).await;
    let answer = answer_to_handshake(gateway.address("web"), "/news").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "plain"));
    assert_eq!(origin.last().field("upgrade"), None);
}

#[tokio::test]
async fn events_arrive_one_by_one_as_they_are_sent() {
    let origin = ManualOrigin::start().await;
    let gateway = gateway(origin.address()).await;
    let mut client = Wire::connect(gateway.address("web")).await;
    client.send("GET /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n").await;
    let mut endpoint = origin.accept().await;
    endpoint.request().await;
    endpoint
        .send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    assert_eq!(client.head().await.field("content-type"), Some("text/event-stream"));
    for n in 0..5 {
        // The next is sent only when the one before has arrived.
        let event = format!("data: {n}\n\n");
        endpoint.send(format!("{:x}\r\n{event}\r\n", event.len())).await;
        client.expect(format!("{:x}\r\n{event}\r\n", event.len())).await;
    }
}

mod with_peers {
    use super::*;
    use sluice_testkit::Program;

    #[tokio::test]
    async fn pythons_websockets_speaks_through_the_gateway() {
        let gateway = gateway(echo().await).await;
        let script = "import asyncio, sys, websockets\n\
             async def main():\n\
             \x20   async with websockets.connect(sys.argv[1], max_size=None) as socket:\n\
             \x20       for message in ['text', b'x' * 300000]:\n\
             \x20           await socket.send(message)\n\
             \x20           assert await socket.recv() == message\n\
             \x20       await (await socket.ping())\n\
             \x20   print('closed', socket.close_code)\n\
             asyncio.run(main())\n";
        let url = format!("ws://{}/chat", gateway.address("web"));
        let ended = Program::at("/usr/bin/python3").arguments(["-c", script, &url]).finish().await;
        assert_eq!(ended.stdout.trim(), "closed 1000", "{}", ended.stderr);
    }
}
