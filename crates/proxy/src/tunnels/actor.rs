//! The task of one tunnel: the only one that touches its protocol and, through the relay, its socket.
//!
//! It is an [`End`]: the relay that carries every switched connection moves its bytes, so a tunnel runs over any
//! listener. What comes from the connector is what the relay sends here, and the reverse.
//!
//! Promise: an event costs the same however many exchanges the tunnel has; one exchange that is slow holds up no other
//! in 3.0; when it is dropped, every exchange is told and the registry has forgotten the tunnel.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes, BytesMut};
use sluice_tunnel::GatewayEnd;
use sluice_tunnel::event::{Answer, Fault, StreamId, Unsendable};
use sluice_tunnel::registration::Version;
use sluice_tunnel::settings::Settings;
use sluice_tunnel::text::Content;

use super::line::{Begin, Order, Told};
use super::{End as TunnelEnd, Entered, Tunnel, Tunnels, mailbox};
use crate::relay::End;
use crate::world::{Clock, Deadline, World};

/// Bytes of output above which uploads get no further credit; and, in 1.0, bytes that the client has not taken above
/// which nothing is read.
const FULL: usize = 64 * 1024;
/// Bytes that leave in one write.
const PIECE: usize = 64 * 1024;

/// A tunnel's task's state.
pub struct Actor {
    end: GatewayEnd,
    tunnel: Arc<Tunnel>,
    tunnels: Arc<Tunnels>,
    orders: mailbox::Receiver<Order>,
    exchanges: HashMap<u64, Running>,
    numbers: HashMap<StreamId, u64>,
    /// Read and not understood yet.
    input: BytesMut,
    /// Content of answers that its exchange has not passed on, in 1.0.
    unread: usize,
    is_held: bool,
    /// Bytes of output that have left.
    taken: u64,
    /// Uploads whose credit is due when the output up to a mark has nearly left.
    owed: VecDeque<(u64, usize, u64)>,
    deadline: Deadline,
    clock: Clock,
    start: Instant,
    is_draining: bool,
    ended: Option<TunnelEnd>,
}

/// An exchange that runs.
struct Running {
    stream: StreamId,
    told: mailbox::Sender<Told>,
    /// Credit that waits for the connector's window.
    withheld: usize,
    /// Its exchange has left: what comes is dropped.
    is_left: bool,
    /// After a 101.
    is_switched: bool,
    /// Both directions end on their own after a 101.
    is_answered: bool,
    is_sent: bool,
}

impl Actor {
    /// The task of a tunnel that has just been agreed on. It can be taken from now on.
    pub fn new(
        tunnels: &Arc<Tunnels>,
        Entered { tunnel, orders }: Entered,
        settings: Settings,
        world: &World,
    ) -> Actor {
        let start = world.clock.now();
        Actor {
            end: GatewayEnd::new(tunnel.origin.version, settings, Duration::ZERO),
            tunnel,
            tunnels: Arc::clone(tunnels),
            orders,
            exchanges: HashMap::new(),
            numbers: HashMap::new(),
            input: BytesMut::new(),
            unread: 0,
            is_held: false,
            taken: 0,
            owed: VecDeque::new(),
            deadline: world.timers.deadline(),
            clock: world.clock,
            start,
            is_draining: false,
            ended: None,
        }
    }

    fn now(&self) -> Duration {
        self.clock.now().saturating_duration_since(self.start)
    }

    /// Does what is ordered and due.
    fn turn(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(order)) = self.orders.poll_recv(cx) {
            self.obey(order);
        }
        if self.is_held && self.unread < FULL {
            // Whoever has bytes for us may go on.
            self.is_held = false;
            cx.waker().wake_by_ref();
        }
        loop {
            match self.end.deadline() {
                Some(due) => self.deadline.set(self.start, due),
                None => self.deadline.clear(),
            }
            if !self.deadline.poll_passed(cx) {
                break;
            }
            let (now, before) = (self.now(), self.end.deadline());
            self.end.tick(now);
            self.hear();
            if self.end.deadline() == before {
                break;
            }
        }
    }

    fn obey(&mut self, order: Order) {
        let now = self.now();
        match order {
            Order::Request(begin) => self.begin(*begin, now),
            Order::Data(number, bytes) => self.data(number, bytes, now),
            Order::Trailers(number, fields) => {
                if let Some(running) = self.exchanges.get_mut(&number) {
                    running.is_sent = true;
                    self.end.trailers(running.stream, &fields, now);
                    self.maybe_over(number);
                }
            }
            Order::End(number) => {
                if let Some(running) = self.exchanges.get_mut(&number) {
                    running.is_sent = true;
                    self.end.end(running.stream, now);
                    self.maybe_over(number);
                }
            }
            Order::Consumed(number, count) => {
                self.unread = self.unread.saturating_sub(count);
                if let Some(running) = self.exchanges.get(&number) {
                    self.end.consumed(running.stream, count, now);
                }
            }
            Order::Leave(number) => {
                self.unread = if self.tunnel.origin.version == Version::V1 { 0 } else { self.unread };
                if let Some(running) = self.exchanges.get_mut(&number) {
                    running.is_left = true;
                }
            }
            Order::Gone(number) => self.give_up(number, now),
            Order::Retire => _ = self.end.retire(now),
            Order::Drain => {
                self.is_draining = true;
                _ = self.end.retire(now);
            }
        }
        self.hear();
    }

    fn begin(&mut self, begin: Begin, now: Duration) {
        let Begin { number, head, content, told } = begin;
        if told.is_closed() {
            return self.tunnels.give_back(&self.tunnel);
        }
        match self.end.request(&head, content, now) {
            Ok(stream) => {
                self.tunnel.is_used.store(true, Ordering::Relaxed);
                // Nobody may listen any more: then Gone follows. Without content nobody waits for it.
                let _ = match content {
                    Content::None | Content::Length(0) => told.send_unhurried(Told::Begun),
                    Content::Length(_) | Content::Unknown => told.send(Told::Begun),
                };
                self.numbers.insert(stream, number);
                let running = Running {
                    stream,
                    told,
                    withheld: 0,
                    is_left: false,
                    is_switched: false,
                    is_answered: false,
                    is_sent: false,
                };
                self.exchanges.insert(number, running);
            }
            Err(unsent) => {
                let _ = told.send(Told::Unsent(unsent));
                match unsent {
                    Unsendable::TooLarge => self.tunnels.give_back(&self.tunnel),
                    Unsendable::NotOpen => self.tunnels.released(&self.tunnel),
                }
            }
        }
    }

    fn data(&mut self, number: u64, bytes: Bytes, now: Duration) {
        let Some(running) = self.exchanges.get(&number) else { return };
        let length = bytes.len();
        self.end.data(running.stream, bytes, now);
        let mark = self.taken + self.end.output().remaining() as u64;
        self.owed.push_back((number, length, mark));
        self.pay();
    }

    /// Gives credit for what has nearly left.
    fn pay(&mut self) {
        let reached = self.taken + FULL as u64;
        while let Some(&(number, length, _)) = self.owed.front().filter(|(_, _, mark)| *mark <= reached) {
            self.owed.pop_front();
            let Some(running) = self.exchanges.get_mut(&number) else { continue };
            match self.end.may_send(running.stream) {
                true => _ = running.told.send(Told::Credit(length)),
                false => running.withheld += length,
            }
        }
    }

    fn give_up(&mut self, number: u64, now: Duration) {
        let Some(running) = self.exchanges.remove(&number) else { return };
        self.unread = if self.tunnel.origin.version == Version::V1 { 0 } else { self.unread };
        self.numbers.remove(&running.stream);
        self.end.reset(running.stream, "Client early closed", now);
        self.over();
    }

    /// What the connector said.
    fn hear(&mut self) {
        loop {
            let now = self.now();
            let Some(answer) = self.end.receive(&mut self.input, now) else { break };
            match answer {
                Answer::Head(stream, head) => self.head(stream, head),
                Answer::Data(stream, bytes) => self.content(stream, bytes, now),
                Answer::Trailers(stream, fields) => self.tell(stream, Told::Trailers(fields)),
                Answer::End(stream) => self.ended(stream),
                Answer::Failed(stream, fault) => self.failed(stream, fault),
                Answer::Resumed(stream) => self.resumed(stream),
                Answer::Closed(ended) => self.closed(TunnelEnd::from(&ended)),
            }
        }
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
    }

    fn running(&mut self, stream: StreamId) -> Option<&mut Running> {
        self.exchanges.get_mut(self.numbers.get(&stream)?)
    }

    fn tell(&mut self, stream: StreamId, told: Told) {
        if let Some(running) = self.running(stream).filter(|running| !running.is_left) {
            // An exchange that has gone says so itself.
            let _ = running.told.send(told);
        }
    }

    fn head(&mut self, stream: StreamId, head: sluice_http::ResponseHead) {
        if let Some(running) = self.running(stream) {
            running.is_switched = head.status == 101;
        }
        self.tell(stream, Told::Head(head));
    }

    fn content(&mut self, stream: StreamId, bytes: Bytes, now: Duration) {
        let count = bytes.len();
        let is_wanted = self
            .running(stream)
            .is_some_and(|running| !running.is_left && running.told.send(Told::Data(bytes)).is_ok());
        match is_wanted {
            true if self.tunnel.origin.version == Version::V1 => self.unread += count,
            true => {}
            false => self.end.consumed(stream, count, now),
        }
    }

    fn resumed(&mut self, stream: StreamId) {
        if let Some(running) = self.running(stream).filter(|running| running.withheld > 0) {
            let _ = running.told.send(Told::Credit(std::mem::take(&mut running.withheld)));
        }
    }

    fn ended(&mut self, stream: StreamId) {
        self.tell(stream, Told::End);
        let Some(&number) = self.numbers.get(&stream) else { return };
        if let Some(running) = self.exchanges.get_mut(&number) {
            running.is_answered = true;
        }
        self.maybe_over(number);
    }

    /// An exchange is over with its answer; one that switched, with both directions.
    fn maybe_over(&mut self, number: u64) {
        let is_over = |running: &Running| running.is_answered && (running.is_sent || !running.is_switched);
        if self.exchanges.get(&number).is_some_and(is_over)
            && let Some(running) = self.exchanges.remove(&number)
        {
            self.numbers.remove(&running.stream);
            self.over();
        }
    }

    fn failed(&mut self, stream: StreamId, fault: Fault) {
        let number = self.numbers.remove(&stream);
        if let Some(running) = number.and_then(|number| self.exchanges.remove(&number)) {
            let _ = running.told.send(Told::Failed(fault));
            self.over();
        }
    }

    /// One exchange less.
    fn over(&mut self) {
        self.tunnels.released(&self.tunnel);
        if self.is_draining {
            let now = self.now();
            _ = self.end.retire(now);
        }
    }

    fn closed(&mut self, end: TunnelEnd) {
        // After a 101 an exchange whose answer had ended is still here.
        for (_, running) in self.exchanges.drain() {
            let _ = running.told.send(Told::Failed(Fault::GoneAway));
        }
        self.numbers.clear();
        if self.ended.replace(end).is_none() {
            self.tunnels.remove(&self.tunnel, end, self.clock.now());
        }
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        let now = self.now();
        self.end.eof(now);
        self.hear();
        self.closed(TunnelEnd::Dropped);
    }
}

impl End for Actor {
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        self.turn(cx);
        let waiting = self.end.output().remaining();
        match waiting {
            0 if self.end.is_over() => Poll::Ready(Ok(Bytes::new())),
            0 => Poll::Pending,
            waiting => {
                let piece = self.end.output().copy_to_bytes(waiting.min(PIECE));
                self.taken += piece.len() as u64;
                self.pay();
                Poll::Ready(Ok(piece))
            }
        }
    }

    fn poll_send(&mut self, bytes: &mut Bytes, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.turn(cx);
        if self.unread >= FULL {
            self.is_held = true;
            return Poll::Pending;
        }
        self.input.extend_from_slice(bytes);
        bytes.clear();
        self.hear();
        Poll::Ready(Ok(()))
    }

    fn poll_end(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let now = self.now();
        self.end.eof(now);
        self.hear();
        Poll::Ready(Ok(()))
    }

    fn reset(&mut self) {}

    fn ends_both(&self) -> bool {
        self.ended.is_some()
    }
}
