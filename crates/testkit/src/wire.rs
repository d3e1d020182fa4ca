//! A client that sends exactly the bytes it is given and shows exactly the bytes that came.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::deadline::within;
use crate::message::{Answer, Broken, RawBody, RawHead, Reader, Received, answer_ends, request_ends};

/// One connection to a server under test, TCP or what runs over it. Every wait has a deadline.
#[derive(Debug)]
pub struct Wire<S = TcpStream> {
    reader: Reader<S>,
}

impl Wire {
    /// A connection to `address`.
    pub async fn connect(address: SocketAddr) -> Wire {
        let connected = within("a connection", TcpStream::connect(address)).await;
        Wire::over(connected.unwrap_or_else(|error| panic!("cannot connect to {address}: {error}")))
    }

    /// Connects to a server that ends the connection without a byte. One that resets at once may do so
    /// before our end knows that it was connected.
    pub async fn refused_by(address: SocketAddr) {
        match within("a connection", TcpStream::connect(address)).await {
            Ok(stream) => Wire::over(stream).expect_closed().await,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => panic!("cannot connect to {address}: {error}"),
        }
    }

    /// A connection to `address` from the loopback address `source`: another client to the server.
    pub async fn connect_from(source: IpAddr, address: SocketAddr) -> Wire {
        let socket = TcpSocket::new_v4().unwrap();
        socket
            .bind(SocketAddr::new(source, 0))
            .unwrap_or_else(|error| panic!("cannot bind {source}: {error}"));
        let connected = within("a connection", socket.connect(address)).await;
        Wire::over(connected.unwrap_or_else(|error| panic!("cannot connect to {address}: {error}")))
    }

    /// A connection that was accepted.
    pub(crate) fn over(stream: TcpStream) -> Wire {
        stream.set_nodelay(true).unwrap();
        Wire::through(stream)
    }

    /// Our end's address.
    pub fn local_address(&self) -> SocketAddr {
        self.reader.from.local_addr().unwrap()
    }

    /// Resets the connection: the peer sees ECONNRESET, not an end.
    pub fn reset(self) {
        self.reader.from.set_zero_linger().unwrap();
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// A connection through this stream, which is set up.
    pub fn through(stream: S) -> Wire<S> {
        Wire { reader: Reader::new(stream) }
    }

    /// What the bytes go through.
    pub fn stream(&self) -> &S {
        &self.reader.from
    }

    /// Sends these bytes, in as many segments as the kernel likes. A peer that has closed is no failure
    /// here: what it answered is what counts.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Wire<S> {
        let _ = within("sending", self.reader.from.write_all(bytes.as_ref())).await;
        self
    }

    /// Sends these bytes; whether the peer's end still took them.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        within("sending", self.reader.from.write_all(bytes.as_ref())).await
    }

    /// Tells the peer that nothing more will come, and goes on reading.
    pub async fn half_close(&mut self) -> &mut Wire<S> {
        let _ = within("half-closing", self.reader.from.shutdown()).await;
        self
    }

    /// Exactly one answer to a request that is not HEAD. Interim answers (1xx but 101) are skipped.
    pub async fn answer(&mut self) -> Answer {
        self.answer_to("GET").await
    }

    /// Exactly one answer to a request with this method; interim answers are skipped.
    pub async fn answer_to(&mut self, method: &str) -> Answer {
        self.try_answer_to(method).await.unwrap_or_else(|problem| panic!("no complete answer: {problem}"))
    }

    /// As [`Wire::answer_to`], but a missing or broken answer is a sentence, not a failed test.
    pub async fn try_answer_to(&mut self, method: &str) -> Result<Answer, String> {
        loop {
            let head = within("an answer's head", self.reader.head()).await.map_err(sentence)?;
            let status = status_of(&head)?;
            if (100..200).contains(&status) && status != 101 {
                continue;
            }
            let ends = answer_ends(method, status, &head.fields);
            let body = within("an answer's body", self.reader.body(ends)).await.map_err(sentence)?;
            return Ok(joined(status, head, body));
        }
    }

    /// The next head alone, interim ones too; its body is left unread.
    pub async fn head(&mut self) -> Answer {
        let head = within("an answer's head", self.reader.head()).await;
        let head = head.unwrap_or_else(|broken| panic!("no head: {}", sentence(broken)));
        let status = status_of(&head).unwrap_or_else(|problem| panic!("{problem}"));
        joined(status, head, RawBody::default())
    }

    /// The head of the next request, for a test that plays an origin; its body is left unread.
    pub async fn request_head(&mut self) -> Received {
        let head = within("a request's head", self.reader.head()).await;
        Received::of(head.unwrap_or_else(|broken| panic!("no request: {}", sentence(broken))), 0)
    }

    /// The next request with its body, for a test that plays an origin.
    pub async fn request(&mut self) -> Received {
        let mut request = self.request_head().await;
        let body = within("a request's body", self.reader.body(request_ends(&request.fields))).await;
        let body = body.unwrap_or_else(|broken| panic!("no whole request: {}", sentence(broken)));
        (request.body, request.body_on_wire, request.trailers) = (body.content, body.on_wire, body.trailers);
        request
    }

    /// The next `length` bytes.
    pub async fn read(&mut self, length: usize) -> Vec<u8> {
        let read = within("bytes", self.reader.take(length)).await;
        read.unwrap_or_else(|_| panic!("closed after {} of {length} bytes", self.reader.buffer.len()))
    }

    /// Everything until the peer closes or resets.
    pub async fn read_to_end(&mut self) -> Vec<u8> {
        within("the end", async { while self.reader.more().await {} }).await;
        std::mem::take(&mut self.reader.buffer)
    }

    /// Everything until the peer closes; an error when it resets instead, which discards what had come.
    pub async fn try_read_to_end(&mut self) -> std::io::Result<Vec<u8>> {
        within("the end", self.reader.from.read_to_end(&mut self.reader.buffer)).await?;
        Ok(std::mem::take(&mut self.reader.buffer))
    }

    /// The very next bytes must be these.
    pub async fn expect(&mut self, bytes: impl AsRef<[u8]>) -> &mut Wire<S> {
        let read = self.read(bytes.as_ref().len()).await;
        assert_eq!(String::from_utf8_lossy(&read), String::from_utf8_lossy(bytes.as_ref()));
        self
    }

    /// Nothing more may come, and the peer must close.
    pub async fn expect_closed(&mut self) {
        let rest = self.read_to_end().await;
        assert!(rest.is_empty(), "expected the end, got {:?}", String::from_utf8_lossy(&rest));
    }

    /// Whether the peer has closed by now, without waiting.
    pub async fn is_closed(&mut self) -> bool {
        let mut byte = [0];
        let polled =
            tokio::time::timeout(std::time::Duration::from_millis(1), self.reader.from.read(&mut byte));
        match polled.await {
            Ok(Ok(0) | Err(_)) => true,
            Ok(Ok(_)) => {
                self.reader.buffer.push(byte[0]);
                false
            }
            Err(_) => false,
        }
    }
}

fn sentence(broken: Broken) -> String {
    match broken {
        Broken::Closed => "the connection was closed without an answer".into(),
        Broken::Cut => "the connection was closed in the middle of an answer".into(),
        Broken::Invalid(what) => what,
    }
}

fn status_of(head: &RawHead) -> Result<u16, String> {
    let known = head.start[0] == "HTTP/1.1" || head.start[0] == "HTTP/1.0";
    match head.start[1].parse() {
        Ok(status) if known => Ok(status),
        _ => Err(format!("a start line that is none: {:?}", head.start)),
    }
}

fn joined(status: u16, head: RawHead, body: RawBody) -> Answer {
    let [version, _, reason] = head.start;
    Answer {
        head: head.bytes,
        status,
        reason,
        version,
        fields: head.fields,
        body: body.content,
        body_on_wire: body.on_wire,
        trailers: body.trailers,
    }
}
