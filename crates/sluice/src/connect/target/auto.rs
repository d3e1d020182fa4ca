//! A target over TLS that is spoken to in what it agrees to (ALPN): HTTP/2, or else HTTP/1.1.
//!
//! Promise: what was agreed on last holds until the target cannot be spoken to; a connection that was made to find
//! out is the one the request goes over.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use sluice_http::{Request, Response, h1};
use sluice_proxy::tls::Offer;
use sluice_proxy::world::World;
use sluice_tunnel::connector::{
    Address, Dial, Http1, Http1Settings, LocalFuture, Stream, Target, TargetFailed,
};
use tokio::time::Instant;

use super::http2::{Http2, NoPlace};
use crate::connect::dial::Dialler;

/// A connection that speaks HTTP/1.1 and that nobody took is as good as new for so long.
const FRESH: Duration = Duration::from_secs(2);

/// The target.
pub(super) struct Auto(Rc<Shared>);

struct Shared {
    http1: Http1,
    http2: Http2,
    left: Rc<Left>,
    /// What was agreed on last.
    speaks_http1: Cell<bool>,
}

/// Connections that turned out to speak HTTP/1.1, for whoever dials next.
struct Left {
    streams: RefCell<Vec<(Box<dyn Stream>, Instant)>>,
    dialler: Dialler,
}

impl Dial for Left {
    fn dial(&self, to: &Address) -> LocalFuture<io::Result<Box<dyn Stream>>> {
        self.streams.borrow_mut().retain(|(_, since)| since.elapsed() < FRESH);
        match self.streams.borrow_mut().pop() {
            Some((stream, _)) => Box::pin(async move { Ok(stream) }),
            None => self.dialler.dial(to),
        }
    }
}

impl Auto {
    /// The target at this address.
    pub(super) fn new(to: Address, dialler: Dialler, world: Rc<World>) -> Auto {
        let left = Rc::new(Left { streams: RefCell::default(), dialler: dialler.clone() });
        let dial: Rc<dyn Dial> = Rc::clone(&left) as Rc<dyn Dial>;
        Auto(Rc::new(Shared {
            http1: Http1::new(to.clone(), dial, Http1Settings::default()),
            http2: Http2::new(to, dialler, Offer::Both, world),
            left,
            speaks_http1: Cell::new(false),
        }))
    }
}

impl Target for Auto {
    fn call(&self, request: Request) -> LocalFuture<Result<Response, TargetFailed>> {
        let shared = Rc::clone(&self.0);
        Box::pin(async move { shared.call(request).await })
    }
}

impl Shared {
    async fn call(&self, request: Request) -> Result<Response, TargetFailed> {
        if !self.speaks_http1.get() {
            match self.http2.place().await {
                // Not every server that speaks HTTP/2 changes protocols in it (RFC 8441).
                Ok(slot) if h1::upgrade(&request.head.fields).is_some() && !slot.takes_connect() => {
                    return self.http1.call(request).await;
                }
                Ok(slot) => return self.http2.exchange(slot, request).await,
                Err(NoPlace::Failed(failed)) => return Err(failed),
                Err(NoPlace::Http1(stream)) => {
                    self.left.streams.borrow_mut().push((stream, Instant::now()));
                    self.speaks_http1.set(true);
                }
            }
        }
        let answer = self.http1.call(request).await;
        if matches!(answer, Err(TargetFailed::Unreachable | TargetFailed::TimedOut | TargetFailed::Closed)) {
            // Whoever is there next may speak something else.
            self.speaks_http1.set(false);
        }
        answer
    }
}
