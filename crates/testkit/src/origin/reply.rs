//! What an origin answers: one reply, and scripts of them.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::message::Received;

/// How the bytes of a reply leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// All at once.
    Whole,
    /// So many bytes at a time, with a pause between them.
    Dribble { bytes: usize, every: Duration },
    /// So many bytes, then the connection is closed.
    CutAfter(usize),
    /// So many bytes, then the connection is reset.
    ResetAfter(usize),
}

/// What the answer is made of.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// These bytes and nothing else, head included.
    Raw(Vec<u8>),
    /// A status with a sized body.
    Sized { status: u16, body: Vec<u8> },
    /// A status with a chunked body.
    Chunked { status: u16, chunks: Vec<Vec<u8>> },
    /// 200 with a body that ends where the connection does.
    UntilClose(Vec<u8>),
    /// The request, as JSON.
    Echo,
    /// 101 with this protocol, then every byte comes back.
    Upgrade(String),
    /// Nothing, for ever.
    Never,
}

/// One reply of an origin. Made by a constructor, refined by the methods after it.
#[derive(Clone, Debug)]
pub struct Reply {
    pub(crate) content: Content,
    pub(crate) manner: Manner,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) trailers: Vec<(String, String)>,
    pub(crate) interim: Vec<u8>,
    pub(crate) close: bool,
    pub(crate) held: bool,
    pub(crate) early: bool,
}

impl Reply {
    fn of(content: Content) -> Reply {
        Reply {
            content,
            manner: Manner::Whole,
            fields: Vec::new(),
            trailers: Vec::new(),
            interim: Vec::new(),
            close: false,
            held: false,
            early: false,
        }
    }

    /// 200 with this body.
    pub fn ok(body: impl Into<Vec<u8>>) -> Reply {
        Reply::of(Content::Sized { status: 200, body: body.into() })
    }

    /// This status with a body that spells it.
    pub fn status(status: u16) -> Reply {
        let body = match status {
            100..200 | 204 | 304 => Vec::new(),
            _ => status.to_string().into_bytes(),
        };
        Reply::of(Content::Sized { status, body })
    }

    /// 200 with a chunked body of these chunks.
    pub fn chunked<C: Into<Vec<u8>>>(chunks: impl IntoIterator<Item = C>) -> Reply {
        Reply::of(Content::Chunked { status: 200, chunks: chunks.into_iter().map(Into::into).collect() })
    }

    /// 200 without a length; the connection is closed after the body.
    pub fn until_close(body: impl Into<Vec<u8>>) -> Reply {
        Reply::of(Content::UntilClose(body.into())).close()
    }

    /// Exactly these bytes, start line and all; the connection stays open unless `close` is added.
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Reply {
        Reply::of(Content::Raw(bytes.into()))
    }

    /// The request as JSON: `method`, `target`, `fields` (a list of pairs), `body`, `connection`.
    pub fn echo() -> Reply {
        Reply::of(Content::Echo)
    }

    /// 101 to this protocol; from then on every byte comes back, until the peer has finished.
    pub fn upgrade(protocol: &str) -> Reply {
        Reply::of(Content::Upgrade(protocol.into()))
    }

    /// No answer, ever: the connection stays open.
    pub fn never() -> Reply {
        Reply::of(Content::Never)
    }

    /// The connection is closed instead of an answer.
    pub fn closed() -> Reply {
        Reply::raw("").close()
    }

    /// The connection is reset instead of an answer.
    pub fn reset() -> Reply {
        Reply::raw("").reset_after(0)
    }

    /// Adds a field line.
    pub fn field(mut self, name: &str, value: &str) -> Reply {
        self.fields.push((name.into(), value.into()));
        self
    }

    /// Adds a trailer field to a chunked reply.
    pub fn trailer(mut self, name: &str, value: &str) -> Reply {
        self.trailers.push((name.into(), value.into()));
        self
    }

    /// Another status for a reply that has one.
    pub fn with_status(mut self, new: u16) -> Reply {
        match &mut self.content {
            Content::Sized { status, .. } | Content::Chunked { status, .. } => *status = new,
            other => panic!("{other:?} has no status of its own"),
        }
        self
    }

    /// Another body for a reply with a sized one.
    pub fn body(mut self, new: impl Into<Vec<u8>>) -> Reply {
        match &mut self.content {
            Content::Sized { body, .. } => *body = new.into(),
            other => panic!("{other:?} has no sized body"),
        }
        self
    }

    /// Sends this interim head (1xx) first.
    pub fn interim(mut self, status: u16, fields: &[(&str, &str)]) -> Reply {
        let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        self.interim.extend_from_slice(format!("HTTP/1.1 {status} Interim\r\n{fields}\r\n").as_bytes());
        self
    }

    /// Says `Connection: close` and closes after the answer.
    pub fn close(mut self) -> Reply {
        self.close = true;
        self
    }

    /// Sends only the first bytes of the answer, then closes.
    pub fn cut_after(mut self, bytes: usize) -> Reply {
        self.manner = Manner::CutAfter(bytes);
        self
    }

    /// Sends only the first bytes of the answer, then resets.
    pub fn reset_after(mut self, bytes: usize) -> Reply {
        self.manner = Manner::ResetAfter(bytes);
        self
    }

    /// Sends the answer in small pieces, with a pause between them.
    pub fn dribble(mut self, bytes: usize, every: Duration) -> Reply {
        self.manner = Manner::Dribble { bytes: bytes.max(1), every };
        self
    }

    /// Answers only when [`Origin::release`](crate::Origin::release) is called.
    pub fn held(mut self) -> Reply {
        self.held = true;
        self
    }

    /// Answers as soon as the head is there, before the request's body.
    pub fn early(mut self) -> Reply {
        self.early = true;
        self
    }

    /// A script that starts with this reply so many times.
    pub fn times(self, count: usize) -> Script {
        Script::list(vec![self; count])
    }

    /// A script: this reply, then that one.
    pub fn then(self, next: Reply) -> Script {
        Script::list(vec![self, next])
    }

    /// The bytes of the answer to `request`.
    pub(crate) fn render(&self, request: &Received) -> Vec<u8> {
        let no_content = request.method == "HEAD";
        let mut out = self.interim.clone();
        match &self.content {
            Content::Never => {}
            Content::Raw(bytes) => out.extend_from_slice(bytes),
            Content::Sized { status, body } => {
                self.head(&mut out, *status, sized(*status, body.len()));
                if !no_content {
                    out.extend_from_slice(body);
                }
            }
            Content::Chunked { status, chunks } => {
                self.head(&mut out, *status, Some("Transfer-Encoding: chunked".into()));
                if !no_content {
                    self.chunks(&mut out, chunks);
                }
            }
            Content::UntilClose(body) => {
                self.head(&mut out, 200, None);
                out.extend_from_slice(body);
            }
            Content::Echo => {
                let body = echo(request);
                self.head(&mut out, 200, sized(200, body.len()));
                if !no_content {
                    out.extend_from_slice(&body);
                }
            }
            Content::Upgrade(protocol) => {
                self.head(&mut out, 101, Some(format!("Connection: upgrade\r\nUpgrade: {protocol}")));
            }
        }
        out
    }

    fn head(&self, out: &mut Vec<u8>, status: u16, framing: Option<String>) {
        out.extend_from_slice(format!("HTTP/1.1 {status} Scripted\r\n").as_bytes());
        if self.close {
            out.extend_from_slice(b"Connection: close\r\n");
        }
        for (name, value) in &self.fields {
            out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        if let Some(line) = framing {
            out.extend_from_slice(format!("{line}\r\n").as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }

    fn chunks(&self, out: &mut Vec<u8>, chunks: &[Vec<u8>]) {
        for chunk in chunks {
            out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            out.extend_from_slice(chunk);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"0\r\n");
        for (name, value) in &self.trailers {
            out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }
}

fn sized(status: u16, length: usize) -> Option<String> {
    let has_length = !(status < 200 || status == 204 || (status == 304 && length == 0));
    has_length.then(|| format!("Content-Length: {length}"))
}

fn echo(request: &Received) -> Vec<u8> {
    let fields: Vec<_> = request.fields.0.iter().map(|(name, value)| [name, value]).collect();
    let shown = serde_json::json!({
        "method": request.method,
        "target": request.target,
        "fields": fields,
        "body": request.text(),
        "connection": request.connection,
    });
    shown.to_string().into_bytes()
}

type Rule = Arc<dyn Fn(&Received) -> Reply + Send + Sync>;

/// Which reply the next request gets. The last reply of a list repeats for ever.
#[derive(Clone)]
pub struct Script(Plan);

#[derive(Clone)]
enum Plan {
    List(Arc<Mutex<Vec<Reply>>>),
    Each(Rule),
}

impl Script {
    fn list(mut replies: Vec<Reply>) -> Script {
        assert!(!replies.is_empty(), "a script needs a reply");
        replies.reverse();
        Script(Plan::List(Arc::new(Mutex::new(replies))))
    }

    /// Decides from each request.
    pub fn each(rule: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Script {
        Script(Plan::Each(Arc::new(rule)))
    }

    /// This reply after those; the last one repeats.
    pub fn then(self, next: Reply) -> Script {
        match &self.0 {
            Plan::List(replies) => replies.lock().unwrap().insert(0, next),
            Plan::Each(_) => panic!("a script that decides from each request has no end to add to"),
        }
        self
    }

    /// The next reply of a list, taken as soon as a head is there; `None` for a rule, which is asked when
    /// the whole request is.
    pub(crate) fn reply_at_head(&self) -> Option<Reply> {
        let Plan::List(replies) = &self.0 else { return None };
        let mut replies = replies.lock().unwrap();
        match replies.len() {
            1 => replies.first().cloned(),
            _ => replies.pop(),
        }
    }

    /// What the rule says; asked only when `reply_at_head` gave nothing.
    pub(crate) fn reply_to(&self, request: &Received) -> Reply {
        match &self.0 {
            Plan::Each(rule) => rule(request),
            Plan::List(_) => unreachable!("a list decides when the head is there"),
        }
    }
}

impl From<Reply> for Script {
    fn from(reply: Reply) -> Script {
        Script::list(vec![reply])
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Plan::List(replies) => f.debug_tuple("Script").field(replies).finish(),
            Plan::Each(_) => f.write_str("Script(each)"),
        }
    }
}
