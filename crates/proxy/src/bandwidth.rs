//! How fast the bytes of an exchange move: its bodies, or what passes through its tunnel.
//!
//! Promise: bytes are never dropped, they wait, and so does whoever sends them (back-pressure); a limit that
//! several exchanges share holds for all of them together, over all workers.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use sluice_http::{Body, BodyError, Frame, Source};
use sluice_traffic::pace::{Pace, Policy};

use crate::relay::{self, End, Relayed};
use crate::world::{Deadline, World};

/// Buckets that exchanges share, by name, kept over configuration changes.
#[derive(Debug, Default)]
pub struct Paces(Mutex<BTreeMap<String, Weak<Both>>>);

/// A bucket for each direction.
#[derive(Debug, Default)]
pub struct Both {
    up: Arc<Pace>,
    down: Arc<Pace>,
}

impl Paces {
    /// The buckets of a name.
    pub fn named(&self, name: &str) -> Arc<Both> {
        let mut paces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        paces.retain(|_, both| both.strong_count() > 0);
        let both = paces.get(name).and_then(Weak::upgrade).unwrap_or_default();
        paces.insert(name.to_owned(), Arc::downgrade(&both));
        both
    }
}

/// How fast an exchange may be.
#[derive(Clone)]
pub struct Throttle {
    /// From the client: all of them hold.
    pub up: Vec<Lane>,
    /// To the client.
    pub down: Vec<Lane>,
    world: Rc<World>,
}

impl fmt::Debug for Throttle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Throttle").field("up", &self.up).field("down", &self.down).finish_non_exhaustive()
    }
}

/// One direction's bucket.
#[derive(Clone, Debug)]
pub struct Lane {
    pace: Arc<Pace>,
    policy: Policy,
}

impl Throttle {
    /// With the buckets of `both`, at these rates.
    pub fn new(both: &Both, (up, down): (Option<Policy>, Option<Policy>), world: &Rc<World>) -> Throttle {
        let lane = |pace: &Arc<Pace>, policy| Lane { pace: Arc::clone(pace), policy };
        Throttle {
            up: up.map(|policy| lane(&both.up, policy)).into_iter().collect(),
            down: down.map(|policy| lane(&both.down, policy)).into_iter().collect(),
            world: Rc::clone(world),
        }
    }

    /// Holds the exchange to the lanes of another one too.
    pub fn join(&mut self, mut other: Throttle) {
        self.up.append(&mut other.up);
        self.down.append(&mut other.down);
    }

    /// A body that moves at the pace of all these lanes. One that is here already and small is counted and not
    /// held up.
    pub fn body(&self, body: Body, lanes: &[Lane]) -> Body {
        let Some(gait) = Gait::new(lanes, &self.world) else { return body };
        match body {
            Body::Empty => Body::Empty,
            Body::Full(content) if content.len() as u64 <= gait.burst() => {
                gait.pass(content.len());
                Body::Full(content)
            }
            body => Body::Stream(Box::new(Slow { body, held: Bytes::new(), gait })),
        }
    }
}

/// One who moves bytes through some lanes at once.
struct Gait {
    lanes: Vec<Lane>,
    world: Rc<World>,
    deadline: Deadline,
}

impl Gait {
    /// `None` without lanes: nothing holds it up.
    fn new(lanes: &[Lane], world: &Rc<World>) -> Option<Gait> {
        let gait =
            || Gait { lanes: lanes.to_vec(), world: Rc::clone(world), deadline: world.timers.deadline() };
        (!lanes.is_empty()).then(gait)
    }

    /// Ready when something may pass.
    fn poll_turn(&self, cx: &Context<'_>) -> Poll<()> {
        let now = self.world.clock.now();
        let moment = self.world.clock.moment(now);
        let waits = self.lanes.iter().map(|lane| lane.pace.wait(lane.policy, moment));
        let wait = waits.max().unwrap_or_default();
        if wait == Duration::ZERO {
            return Poll::Ready(());
        }
        self.deadline.set(now, wait);
        match self.deadline.poll_passed(cx) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    fn pass(&self, bytes: usize) {
        let now = self.world.clock.moment(self.world.clock.now());
        self.lanes.iter().for_each(|lane| lane.pace.pass(bytes as u64, lane.policy, now));
    }

    /// How much may pass in one piece: what a twentieth of a second carries, so that slow is not in jerks.
    fn piece(&self) -> usize {
        let slowest = self.lanes.iter().map(|lane| lane.policy.rate).min().unwrap_or(u64::MAX);
        usize::try_from(slowest / 20).unwrap_or(usize::MAX).clamp(1024, 256 * 1024)
    }

    /// How much may pass at once after a pause.
    fn burst(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.policy.burst).min().unwrap_or(u64::MAX)
    }
}

/// A body that moves at its pace.
struct Slow {
    body: Body,
    /// Came and may not pass yet.
    held: Bytes,
    gait: Gait,
}

impl Source for Slow {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        if self.held.is_empty() {
            match ready!(self.body.poll_frame(cx)) {
                Some(Ok(Frame::Data(content))) => self.held = content,
                other => return Poll::Ready(other),
            }
        }
        ready!(self.gait.poll_turn(cx));
        let piece = self.held.split_to(self.held.len().min(self.gait.piece()));
        self.gait.pass(piece.len());
        Poll::Ready(Some(Ok(Frame::Data(piece))))
    }

    fn length(&self) -> Option<u64> {
        Some(self.body.length()? + self.held.len() as u64)
    }
}

/// The endpoint's end of a tunnel, at the pace of its exchange. It hides the socket: what is counted cannot be
/// spliced past us.
struct SlowEnd<'a> {
    end: &'a mut dyn End,
    up: Option<Gait>,
    down: Option<Gait>,
}

impl End for SlowEnd<'_> {
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        let Some(gait) = &self.down else { return self.end.poll_receive(cx) };
        ready!(gait.poll_turn(cx));
        let received = ready!(self.end.poll_receive(cx))?;
        gait.pass(received.len());
        Poll::Ready(Ok(received))
    }

    fn poll_send(&mut self, bytes: &mut Bytes, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(gait) = &self.up else { return self.end.poll_send(bytes, cx) };
        while !bytes.is_empty() {
            ready!(gait.poll_turn(cx));
            let mut piece = bytes.slice(..bytes.len().min(gait.piece()));
            let whole = piece.len();
            let sent = self.end.poll_send(&mut piece, cx);
            let left = whole - piece.len();
            bytes.advance(left);
            gait.pass(left);
            ready!(sent)?;
        }
        // Everything is with the end; whether all of it has left is its own affair.
        self.end.poll_send(bytes, cx)
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.end.poll_end(cx)
    }

    fn reset(&mut self) {
        self.end.reset();
    }
}

/// Runs a tunnel as [`relay::run`] does, at the pace of its exchange.
pub async fn relay(
    (client, endpoint): (&mut dyn End, &mut dyn End),
    throttle: Option<&Throttle>,
    (idle, world): (Duration, &World),
) -> Relayed {
    let Some(throttle) = throttle else { return relay::run(client, endpoint, idle, world).await };
    let gait = |lanes: &[Lane]| Gait::new(lanes, &throttle.world);
    let mut slow = SlowEnd { end: endpoint, up: gait(&throttle.up), down: gait(&throttle.down) };
    relay::run(client, &mut slow, idle, world).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::Clock;

    fn throttle(rate: u64, burst: u64, both: &Both) -> Throttle {
        let policy = Some(Policy { rate, burst });
        Throttle::new(both, (policy, policy), &World::new(Clock::start(), 1))
    }

    #[tokio::test(flavor = "local")]
    async fn a_body_comes_in_pieces_whole_and_no_faster_than_its_pace() {
        let both = Both::default();
        let throttle = throttle(100_000, 1000, &both);
        let content = Bytes::from((0..20_000u32).map(|index| index as u8).collect::<Vec<_>>());
        let mut body = throttle.body(Body::Full(content.clone()), &throttle.down);
        assert_eq!(body.length(), Some(20_000));
        let started = throttle.world.clock.now();
        let mut came = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(Frame::Data(piece)) = frame else { panic!() };
            assert!(piece.len() <= 5000);
            came.extend_from_slice(&piece);
            assert_eq!(body.length(), Some(20_000 - came.len() as u64));
        }
        assert_eq!(came, content);
        let took = throttle.world.clock.now().saturating_duration_since(started);
        // The last piece is paid for by whoever comes next.
        assert!(took >= Duration::from_millis(140), "{took:?}");
    }

    #[tokio::test(flavor = "local")]
    async fn what_is_small_and_here_is_counted_and_not_held_up() {
        let both = Both::default();
        let throttle = throttle(1000, 1000, &both);
        let lane = &throttle.down[0];
        assert!(matches!(
            throttle.body(Body::Full(Bytes::from_static(b"abc")), &throttle.down),
            Body::Full(_)
        ));
        throttle.body(Body::Full(Bytes::from(vec![0; 1000])), &throttle.down);
        let now = throttle.world.clock.moment(throttle.world.clock.now());
        assert!(both.down.wait(lane.policy, now) > Duration::ZERO);
        assert_eq!(both.up.wait(lane.policy, now), Duration::ZERO);
    }

    #[tokio::test(flavor = "local")]
    async fn of_two_limits_both_hold_and_each_counts_a_byte_once() {
        let (own, route) = (Both::default(), Both::default());
        let mut both = throttle(1000, 1000, &own);
        both.join(throttle(2000, 4000, &route));
        assert!(matches!(both.body(Body::Full(Bytes::from(vec![0; 1001])), &both.down), Body::Stream(_)));
        both.body(Body::Full(Bytes::from(vec![0; 1000])), &both.down);
        let now = both.world.clock.moment(both.world.clock.now());
        let waits = |pace: &Pace, rate, burst| pace.wait(Policy { rate, burst }, now) > Duration::ZERO;
        assert!(waits(&own.down, 1000, 0) && !waits(&own.down, 1000, 1000));
        assert!(waits(&route.down, 2000, 0) && !waits(&route.down, 2000, 1000));
    }

    #[test]
    fn a_name_keeps_its_buckets_while_somebody_holds_them() {
        let paces = Paces::default();
        let kept = paces.named("a");
        assert!(Arc::ptr_eq(&kept, &paces.named("a")));
        assert!(!Arc::ptr_eq(&kept, &paces.named("b")));
    }
}
