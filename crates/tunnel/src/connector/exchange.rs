//! One exchange: calls the target and passes its answer into the tunnel, as fast as the tunnel takes it.

use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

use sluice_http::{Frame, Request, Response};

use super::hooks::Event;
use super::target::TargetFailed;
use super::tunnel::Tunnel;
use crate::event::{StreamId, Unsendable};

/// How long a client may keep its direction of a changed protocol open after the target has ended the other.
const LINGER: Duration = Duration::from_secs(10);

/// An exchange that ends with its task, also when that panics or is aborted.
struct Running {
    tunnel: Rc<Tunnel>,
    stream: StreamId,
}

impl Drop for Running {
    fn drop(&mut self) {
        // Nothing happens where the exchange has ended properly.
        let stream = self.stream;
        self.tunnel.with(|end, now| end.fail(stream, &reason(TargetFailed::Panicked), now));
        self.tunnel.finished(stream);
    }
}

/// Runs an exchange to its end.
pub(super) async fn run(tunnel: Rc<Tunnel>, stream: StreamId, request: Request) {
    let running = Running { tunnel, stream };
    let tunnel = &running.tunnel;
    let target = request.head.target().to_owned();
    let answer = tunnel.around.target.call(request).await;
    let done = match answer {
        Ok(response) => pass(tunnel, stream, response).await,
        Err(failed) => Err(failed),
    };
    if let Err(failed) = done {
        let router = &tunnel.around.router;
        tunnel.around.hooks.event(&Event::TargetFailed { router, target: &target, failed });
        tunnel.with(|end, now| end.fail(stream, &reason(failed), now));
    }
}

fn reason(failed: TargetFailed) -> String {
    format!("target request failed: {failed}")
}

/// Passes the answer on.
async fn pass(tunnel: &Tunnel, stream: StreamId, response: Response) -> Result<(), TargetFailed> {
    let Response { head, mut body } = response;
    match tunnel.with(|end, now| end.respond(stream, &head, now)) {
        Ok(()) => {}
        Err(Unsendable::TooLarge) => return Err(TargetFailed::Malformed),
        Err(Unsendable::NotOpen) => return Ok(()),
    }
    loop {
        if poll_fn(|cx| tunnel.poll_room(stream, cx)).await.is_err() {
            return Ok(());
        }
        match body.frame().await {
            Some(Ok(Frame::Data(bytes))) => tunnel.with(|end, now| end.data(stream, bytes, now)),
            Some(Ok(Frame::Trailers(fields))) => {
                tunnel.with(|end, now| end.trailers(stream, &fields, now));
                return Ok(());
            }
            None => break,
            Some(Err(_)) => return Err(TargetFailed::Closed),
        }
    }
    tunnel.with(|end, now| end.end(stream, now));
    if head.status == 101 {
        // The client may end its direction by itself; what it still sends, the target no longer takes.
        let _ = tokio::time::timeout(LINGER, poll_fn(|cx| tunnel.poll_over(stream, cx))).await;
    }
    Ok(())
}
