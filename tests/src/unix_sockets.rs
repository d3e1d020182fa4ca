//! Unix sockets as listeners and as endpoints.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use sluice_testkit::{Gateway, Origin, Program, Reply, Scratch, Signal, eventually, sluice, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use crate::handover::{has_ended, process};

fn document(socket: &Path, endpoint: &str, protocol: &str) -> String {
    let (socket, matches) =
        (socket.display(), if protocol == "tcp" { "match = { listeners = [\"local\"] }" } else { "" });
    format!(
        "[process]\nworkers = 2\nadmin = {{ address = \"127.0.0.1:0\" }}\n\n\
         [listeners.local]\naddress = \"unix:{socket}\"\nprotocol = \"{protocol}\"\nmode = \"0600\"\n\n\
         [[routes]]\nname = \"all\"\n{matches}\nforward = {{ upstream = \"app\" }}\n\n\
         [upstreams.app]\nendpoints = [\"{endpoint}\"]\n"
    )
}

/// One request over a Unix socket.
async fn get(socket: &Path) -> String {
    let mut stream = within("a connection", UnixStream::connect(socket)).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    within("an answer", stream.read_to_string(&mut answer)).await.unwrap();
    answer
}

#[tokio::test]
async fn a_listener_on_a_unix_socket_lives_as_long_as_it_is_wanted() {
    let (origin, scratch) = (Origin::start(Reply::ok("hi")).await, Scratch::new());
    let socket = scratch.file("a.sock");
    // Left behind by a process that was killed.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let text = document(&socket, &origin.address().to_string(), "http");
    let mut gateway = Gateway::start(&text).await;
    for _ in 0..8 {
        assert!(get(&socket).await.ends_with("hi"));
    }
    assert_eq!(origin.last().field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let second = scratch.write("second.toml", &text);
    let refused = sluice(["run", &second.display().to_string()]).finish().await;
    assert_eq!(refused.code(), 78, "{}", refused.stderr);
    assert!(get(&socket).await.ends_with("hi"), "the refused process took nothing away");
    let moved = scratch.file("b.sock");
    let changed = gateway.reload(&text.replace("a.sock", "b.sock").replace("0600", "0660")).await;
    assert_eq!(changed.status, 200, "{}", changed.body);
    assert!(get(&moved).await.ends_with("hi") && !socket.exists());
    assert_eq!(std::fs::metadata(&moved).unwrap().permissions().mode() & 0o777, 0o660);
    gateway.signal(Signal::Term).await;
    assert!(gateway.wait_exit().await.success());
    assert!(!moved.exists());
}

#[tokio::test]
async fn a_unix_socket_is_handed_over() {
    let (origin, scratch) = (Origin::start(Reply::ok("hi")).await, Scratch::new());
    let socket = scratch.file("a.sock");
    let gateway = Gateway::start(&document(&socket, &origin.address().to_string(), "http")).await;
    let old = process(&gateway).await;
    gateway.signal(Signal::Usr2).await;
    eventually("the old process ends", async || has_ended(old).then_some(())).await;
    assert!(get(&socket).await.ends_with("hi"));
    let new = process(&gateway).await;
    assert_ne!(new, old);
    let kill = ["-c", &format!("kill -TERM {new}")];
    assert_eq!(Program::at("/bin/sh").arguments(kill).finish().await.code(), 0);
    eventually("the file is removed", async || (!socket.exists()).then_some(())).await;
}

#[tokio::test]
async fn endpoints_on_unix_sockets_are_connected_to_and_checked() {
    let scratch = Scratch::new();
    let (socket, endpoint) = (scratch.file("a.sock"), scratch.file("app.sock"));
    let listener = UnixListener::bind(&endpoint).unwrap();
    let text = document(&socket, &format!("unix:{}", endpoint.display()), "tcp");
    let gateway = Gateway::start(&format!("{text}health = {{ tcp = {{ every = \"50ms\" }} }}\n")).await;
    let up = async |wanted: f64| {
        eventually("the check's word", async || {
            (gateway.metric("sluice_endpoint_up", &[]).await == wanted).then_some(())
        })
        .await;
    };
    up(1.0).await;
    let mut client = UnixStream::connect(&socket).await.unwrap();
    client.write_all(b"ping").await.unwrap();
    // Health checks come too: they connect and close.
    let (mut stream, mut read) = (None, [0; 4]);
    while stream.is_none() {
        let (mut came, _) = within("a connection", listener.accept()).await.unwrap();
        stream = within("bytes", came.read_exact(&mut read)).await.ok().map(|_| came);
    }
    let mut stream = stream.unwrap();
    assert_eq!(&read, b"ping");
    stream.write_all(b"pong").await.unwrap();
    within("bytes", client.read_exact(&mut read)).await.unwrap();
    assert_eq!(&read, b"pong");
    drop(listener);
    up(0.0).await;
}
