//! The flows of one socket: which client address belongs to which flow, and since when it has been idle.
//!
//! Promise: no clock and no socket in here; a flow that nothing moved in for the idle time is idle, and no
//! other; a client address has one flow at most.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// The flows by client address. `F` is what the socket keeps of one.
#[derive(Debug)]
pub(super) struct Flows<F> {
    by_client: HashMap<SocketAddr, Entry<F>>,
}

#[derive(Debug)]
struct Entry<F> {
    flow: F,
    last: Instant,
}

/// Whether another flow may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// Yes.
    Some,
    /// Too many are open.
    None,
}

/// Whose datagram it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Whose<F> {
    /// A flow's.
    Known(F),
    /// A new client's, for whom there is room.
    New,
    /// A new client's, and there is no room.
    Shed,
}

impl<F: Clone> Flows<F> {
    /// None yet.
    pub(super) fn new() -> Flows<F> {
        Flows { by_client: HashMap::new() }
    }

    /// A datagram came from a client.
    pub(super) fn arrived(&mut self, client: SocketAddr, now: Instant, room: Room) -> Whose<F> {
        match self.by_client.get_mut(&client) {
            Some(entry) => {
                entry.last = now;
                Whose::Known(entry.flow.clone())
            }
            None if room == Room::None => Whose::Shed,
            None => Whose::New,
        }
    }

    /// The flow of a new client begins.
    pub(super) fn open(&mut self, client: SocketAddr, flow: F, now: Instant) {
        self.by_client.insert(client, Entry { flow, last: now });
    }

    /// A datagram went to a client.
    pub(super) fn answered(&mut self, client: SocketAddr, now: Instant) {
        if let Some(entry) = self.by_client.get_mut(&client) {
            entry.last = entry.last.max(now);
        }
    }

    /// How long a client's flow may still be idle; none when it has been idle for `idle`, or is none.
    pub(super) fn left(&self, client: SocketAddr, now: Instant, idle: Duration) -> Option<Duration> {
        let entry = self.by_client.get(&client)?;
        idle.checked_sub(now.saturating_duration_since(entry.last)).filter(|left| !left.is_zero())
    }

    /// A client's flow ends.
    pub(super) fn close(&mut self, client: SocketAddr) {
        self.by_client.remove(&client);
        if self.by_client.is_empty() {
            // What a flood of clients took is given back.
            self.by_client.shrink_to(64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_traffic::Rng;

    const IDLE: Duration = Duration::from_millis(500);

    /// A list that is searched from end to end, and cannot be wrong.
    #[derive(Default)]
    struct Naive(Vec<(SocketAddr, u64, Instant)>);

    impl Naive {
        fn of(&mut self, client: SocketAddr) -> Option<&mut (SocketAddr, u64, Instant)> {
            self.0.iter_mut().find(|(known, ..)| *known == client)
        }
    }

    /// One step of a client's life: datagrams in and out, and the reaper.
    fn step(rng: &mut Rng, flows: &mut Flows<u64>, naive: &mut Naive, now: Instant) {
        let client = SocketAddr::new([127, 0, 0, 1].into(), (rng.next() % 40) as u16);
        match rng.next() % 4 {
            0 | 1 => {
                let room = if naive.0.len() < 30 { Room::Some } else { Room::None };
                let whose = flows.arrived(client, now, room);
                let expected = match naive.of(client) {
                    Some((_, number, last)) => {
                        *last = now;
                        Whose::Known(*number)
                    }
                    None if room == Room::None => Whose::Shed,
                    None => Whose::New,
                };
                assert_eq!(whose, expected);
                if whose == Whose::New {
                    let number = rng.next();
                    flows.open(client, number, now);
                    naive.0.push((client, number, now));
                }
            }
            2 => {
                flows.answered(client, now);
                naive.of(client).into_iter().for_each(|(.., last)| *last = now);
            }
            _ => {
                let expected = naive.of(client).map(|(.., last)| IDLE.saturating_sub(now - *last));
                let left = flows.left(client, now, IDLE);
                assert_eq!(left, expected.filter(|left| !left.is_zero()));
                if left.is_none() {
                    flows.close(client);
                    naive.0.retain(|(known, ..)| *known != client);
                }
            }
        }
        assert_eq!(flows.by_client.len(), naive.0.len());
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "an Instant can only be made from the clock")]
    fn whatever_happens_flows_are_those_of_a_plain_list() {
        for seed in 0..20 {
            let (mut rng, mut now) = (Rng::new(seed), Instant::now());
            let (mut flows, mut naive) = (Flows::new(), Naive::default());
            for _ in 0..2_000 {
                now += Duration::from_millis(rng.next() % 20);
                step(&mut rng, &mut flows, &mut naive, now);
            }
        }
    }
}
