//! A gateway for tests: accepts tunnels over pipes in memory and drives our end of each by hand.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use sluice_http::h1::{self, Framing, Limits, Persist, Scanner};
use sluice_http::{RequestHead, ResponseHead};
use sluice_tunnel::connector::{Address, Dial, LocalFuture, Stream};
use sluice_tunnel::event::{Answer, StreamId};
use sluice_tunnel::registration::{Extensions, Purpose, Registration, Version};
use sluice_tunnel::settings::Settings;
use sluice_tunnel::text::Content;
use sluice_tunnel::{GatewayEnd, Retired};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Nothing in a test takes longer.
const LONG: Duration = Duration::from_secs(20);

/// Waits, but not for ever.
pub(crate) async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, work).await.expect("in time")
}

/// Dials into a channel.
pub(crate) struct Pipes(pub(crate) mpsc::UnboundedSender<DuplexStream>);

impl Dial for Pipes {
    fn dial(&self, _: &Address) -> LocalFuture<io::Result<Box<dyn Stream>>> {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let sent = self.0.send(far).map_err(|_| io::ErrorKind::ConnectionRefused.into());
        Box::pin(async move { sent.map(|()| Box::new(near) as Box<dyn Stream>) })
    }
}

/// The gateway's side of everything that is dialled.
pub(crate) struct Gateway {
    pub(crate) dialled: mpsc::UnboundedReceiver<DuplexStream>,
    pub(crate) versions: Vec<Version>,
}

impl Gateway {
    pub(crate) fn new(versions: &[Version]) -> (Gateway, Rc<Pipes>) {
        let (sender, dialled) = mpsc::unbounded_channel();
        (Gateway { dialled, versions: versions.to_vec() }, Rc::new(Pipes(sender)))
    }

    /// The next tunnel; a deregistration is not expected.
    pub(crate) async fn tunnel(&mut self) -> Tunnel {
        let (registration, tunnel) = self.accept().await;
        assert_eq!(registration.purpose, Purpose::Register);
        tunnel
    }

    /// The tunnel for the next request after this one's.
    pub(crate) async fn after(&mut self, tunnel: Tunnel) -> Tunnel {
        match tunnel.end.version() {
            Version::V1 => self.tunnel().await,
            Version::V3 => tunnel,
        }
    }

    /// The next WebSocket, accepted.
    pub(crate) async fn accept(&mut self) -> (Registration, Tunnel) {
        let mut stream = soon(self.dialled.recv()).await.expect("a connector");
        let mut buf = BytesMut::new();
        let length = loop {
            if let Some(length) = Scanner::default().scan(&buf, &Limits::default()).expect("no surprise") {
                break length;
            }
            assert_ne!(soon(stream.read_buf(&mut buf)).await.expect("no surprise"), 0);
        };
        let (head, _) = h1::request(buf.split_to(length).freeze(), &Limits::default()).expect("no surprise");
        let purpose = Purpose::of(head.path()).expect("no surprise");
        let registration = Registration::read(&head, purpose, &self.versions).expect("no surprise");
        let answer = registration.accept(Extensions::ALL);
        let mut out = Vec::new();
        h1::response_head(&answer, Framing::None, head.version, Persist::Upgrade, &mut out);
        stream.write_all(&out).await.expect("no surprise");
        let settings = Settings { extensions: registration.extensions, ..Settings::gateway() };
        let end = GatewayEnd::new(registration.version, settings, Duration::ZERO);
        (
            registration,
            Tunnel { end, stream: Some(stream), buf, start: Instant::now(), missed: RefCell::default() },
        )
    }
}

/// Our end of a tunnel.
pub(crate) struct Tunnel {
    pub(crate) end: GatewayEnd,
    stream: Option<DuplexStream>,
    buf: BytesMut,
    start: Instant,
    /// Answers for other streams than the one that was asked for.
    missed: RefCell<Vec<Answer>>,
}

impl Tunnel {
    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    pub(crate) fn request(&mut self, head: &RequestHead, content: Content) -> StreamId {
        let now = self.now();
        self.end.request(head, content, now).expect("no surprise")
    }

    /// The next answer of any stream; moves bytes until there is one.
    pub(crate) async fn next(&mut self) -> Answer {
        soon(async {
            loop {
                let now = self.now();
                if let Some(answer) = self.end.receive(&mut self.buf, now) {
                    return answer;
                }
                self.turn().await;
            }
        })
        .await
    }

    /// Writes or reads something.
    async fn turn(&mut self) {
        let Some(stream) = &mut self.stream else { panic!("the connection is closed") };
        let (mut reader, mut writer) = tokio::io::split(stream);
        let out = self.end.output();
        tokio::select! {
            wrote = writer.write_buf(out), if out.has_remaining() => assert!(wrote.is_ok()),
            read = reader.read_buf(&mut self.buf) => if !matches!(read, Ok(1..)) {
                let now = self.start.elapsed();
                self.end.eof(now);
            }
        }
    }

    /// Writes everything.
    pub(crate) async fn flush(&mut self) {
        if let Some(stream) = &mut self.stream {
            soon(stream.write_all_buf(self.end.output())).await.expect("no surprise");
        }
    }

    /// The next answer of this stream.
    pub(crate) async fn of(&mut self, stream: StreamId) -> Answer {
        loop {
            let answer = self.next().await;
            match &answer {
                Answer::Head(id, _)
                | Answer::Data(id, _)
                | Answer::Trailers(id, _)
                | Answer::End(id)
                | Answer::Failed(id, _)
                | Answer::Resumed(id)
                    if *id != stream =>
                {
                    self.missed.borrow_mut().push(answer);
                }
                _ => return answer,
            }
        }
    }

    /// The whole answer: head and content.
    pub(crate) async fn answer(&mut self, stream: StreamId) -> (ResponseHead, Vec<u8>) {
        let (mut head, mut content) = (None, Vec::new());
        loop {
            match self.of(stream).await {
                Answer::Head(_, found) => head = Some(found),
                Answer::Data(_, bytes) => {
                    content.extend_from_slice(&bytes);
                    let now = self.now();
                    self.end.consumed(stream, bytes.len(), now);
                }
                Answer::End(_) => return (head.expect("a head"), content),
                Answer::Resumed(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Sends content as fast as the connector takes it, while `on_data` takes the answer's.
    pub(crate) async fn upload(&mut self, stream: StreamId, content: Bytes, mut on_data: impl FnMut(Bytes)) {
        let mut left = content;
        loop {
            while !left.is_empty() && self.end.may_send(stream) && self.end.output().remaining() < 64 * 1024 {
                let (piece, now) = (left.split_to(left.len().min(50_000)), self.now());
                self.end.data(stream, piece, now);
                if left.is_empty() {
                    self.end.end(stream, now);
                }
            }
            let now = self.now();
            match self.end.receive(&mut self.buf, now) {
                Some(Answer::Data(_, bytes)) => {
                    self.end.consumed(stream, bytes.len(), now);
                    on_data(bytes);
                }
                Some(Answer::End(_)) => return,
                Some(Answer::Head(..) | Answer::Resumed(_)) => {}
                Some(other) => panic!("{other:?}"),
                None => soon(self.turn()).await,
            }
        }
    }

    /// Waits until the tunnel is over.
    pub(crate) async fn closed(&mut self) {
        while !matches!(self.next().await, Answer::Closed(_)) {}
        self.stream = None;
    }

    /// Breaks the connection.
    pub(crate) fn drop_connection(&mut self) {
        self.stream = None;
    }

    /// What a gateway does when the connector deregisters.
    pub(crate) async fn retire(&mut self) -> Retired {
        let now = self.now();
        let retired = self.end.retire(now);
        self.flush().await;
        retired
    }

    /// Answers the farewell of a deregistration.
    pub(crate) async fn farewell(mut self) {
        let now = self.now();
        self.end.close(now);
        self.flush().await;
    }
}
