//! Connecting to one of several addresses, both families in turn (RFC 8305, "happy eyeballs").
//!
//! Promise: an address that does not answer delays the next by a quarter of a second and never spoils the
//! connection; the first that connects wins and the others are abandoned. Only addresses that were given are
//! tried: what was checked is what is dialled.

use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::world::World;

/// How long an attempt has before the next begins beside it (RFC 8305 section 5).
const HEAD_START: Duration = Duration::from_millis(250);

/// Addresses that are tried at most: a name server may not make this gateway dial hundreds.
const MOST: usize = 16;

/// Connects to the first of `addresses` that answers. It ends when all have failed; how long it may take is
/// the caller's to limit.
///
/// Cancel-safe: dropping it abandons all attempts.
///
/// # Errors
/// The last failure, or `AddrNotAvailable` when there is no address.
pub async fn connect(addresses: &[IpAddr], port: u16, world: &World) -> io::Result<TcpStream> {
    let deadline = world.timers.deadline();
    let head_start = || {
        deadline.set(world.clock.now(), HEAD_START);
        deadline.passed()
    };
    race(&interleave(addresses), |address| TcpStream::connect(SocketAddr::new(address, port)), head_start)
        .await
}

/// Families take turns, beginning with the first address's; inside a family the order stays
/// (RFC 8305 section 4).
pub fn interleave(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let first_is_v6 = addresses.first().is_some_and(IpAddr::is_ipv6);
    let mut preferred = addresses.iter().filter(|address| address.is_ipv6() == first_is_v6);
    let mut other = addresses.iter().filter(|address| address.is_ipv6() != first_is_v6);
    let mut out = Vec::with_capacity(addresses.len().min(MOST));
    while out.len() < MOST {
        match (preferred.next(), other.next()) {
            (None, None) => break,
            (one, two) => out.extend(one.into_iter().chain(two)),
        }
    }
    out.truncate(MOST);
    out
}

/// The race itself: `dial` begins an attempt, `head_start` the wait before the next one.
async fn race<C, D, W>(
    addresses: &[IpAddr],
    mut dial: impl FnMut(IpAddr) -> D,
    mut head_start: impl FnMut() -> W,
) -> io::Result<C>
where
    D: Future<Output = io::Result<C>>,
    W: Future<Output = ()>,
{
    let mut waiting = addresses.iter();
    let mut running: Vec<Pin<Box<D>>> = Vec::new();
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        running.extend(waiting.next().map(|&address| Box::pin(dial(address))));
        if running.is_empty() {
            return Err(last);
        }
        let more = waiting.len() > 0;
        let mut pause = pin!(head_start());
        let step = poll_fn(|cx| {
            for (index, dial) in running.iter_mut().enumerate() {
                if let Poll::Ready(result) = dial.as_mut().poll(cx) {
                    return Poll::Ready(Some((index, result)));
                }
            }
            if more { pause.as_mut().poll(cx).map(|()| None) } else { Poll::Pending }
        });
        match step.await {
            Some((_, Ok(connection))) => return Ok(connection),
            Some((index, Err(error))) => {
                drop(running.swap_remove(index));
                last = error;
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::task::{Context, Waker};

    use tokio::sync::oneshot;

    use super::*;

    type Result = std::result::Result<&'static str, io::ErrorKind>;

    /// Attempts that end when the test says so, and head starts that pass when the test says so.
    #[derive(Default)]
    struct Network {
        dialled: RefCell<Vec<(IpAddr, Option<oneshot::Sender<Result>>)>>,
        pauses: RefCell<Vec<oneshot::Sender<()>>>,
    }

    impl Network {
        fn dial(&self, address: IpAddr) -> impl Future<Output = io::Result<&'static str>> + use<> {
            let (end, ended) = oneshot::channel::<Result>();
            self.dialled.borrow_mut().push((address, Some(end)));
            async { ended.await.unwrap().map_err(io::Error::from) }
        }

        fn head_start(&self) -> impl Future<Output = ()> + use<> {
            let (pass, passed) = oneshot::channel();
            self.pauses.borrow_mut().push(pass);
            async { passed.await.unwrap() }
        }

        fn end(&self, index: usize, result: Result) {
            self.dialled.borrow_mut()[index].1.take().unwrap().send(result).unwrap();
        }

        fn pass(&self) {
            self.pauses.borrow_mut().pop().unwrap().send(()).unwrap();
        }

        fn dialled(&self) -> Vec<String> {
            self.dialled.borrow().iter().map(|(address, _)| address.to_string()).collect()
        }

        /// Whether nobody waits for attempt `index` any more.
        fn abandoned(&self, index: usize) -> bool {
            self.dialled.borrow()[index].1.as_ref().unwrap().is_closed()
        }
    }

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn families_take_turns_and_the_first_keeps_its_lead() {
        let mixed = ips(&["::1", "::2", "::3", "1.1.1.1", "2.2.2.2"]);
        assert_eq!(interleave(&mixed), ips(&["::1", "1.1.1.1", "::2", "2.2.2.2", "::3"]));
        assert_eq!(interleave(&ips(&["1.1.1.1", "::1"])), ips(&["1.1.1.1", "::1"]));
        assert!(interleave(&[]).is_empty());
        assert_eq!(interleave(&vec![ips(&["::1"])[0]; 500]).len(), MOST);
    }

    #[test]
    fn the_second_begins_after_the_head_start_and_may_win() {
        let (network, all) = (Network::default(), ips(&["::1", "1.1.1.1", "::2"]));
        let mut race = Box::pin(race(&all, |address| network.dial(address), || network.head_start()));
        assert!(poll(race.as_mut()).is_pending());
        assert_eq!(network.dialled(), ["::1"]);
        network.pass();
        assert!(poll(race.as_mut()).is_pending());
        assert_eq!(network.dialled(), ["::1", "1.1.1.1"]);
        network.end(1, Ok("four"));
        let Poll::Ready(Ok("four")) = poll(race.as_mut()) else { panic!("it does not win") };
        drop(race);
        assert!(network.abandoned(0) && network.dialled().len() == 2);
    }

    #[test]
    fn a_failure_begins_the_next_at_once_and_all_failures_end_it() {
        let (network, all) = (Network::default(), ips(&["::1", "1.1.1.1"]));
        let mut race = pin!(race(&all, |address| network.dial(address), || network.head_start()));
        assert!(poll(race.as_mut()).is_pending());
        network.end(0, Err(io::ErrorKind::ConnectionRefused));
        assert!(poll(race.as_mut()).is_pending());
        assert_eq!(network.dialled(), ["::1", "1.1.1.1"]);
        network.end(1, Err(io::ErrorKind::NetworkUnreachable));
        let Poll::Ready(Err(error)) = poll(race.as_mut()) else { panic!("it goes on") };
        assert_eq!(error.kind(), io::ErrorKind::NetworkUnreachable);
    }

    #[test]
    fn a_slow_first_address_still_wins_when_the_second_fails() {
        let (network, all) = (Network::default(), ips(&["::1", "1.1.1.1"]));
        let mut race = pin!(race(&all, |address| network.dial(address), || network.head_start()));
        assert!(poll(race.as_mut()).is_pending());
        network.pass();
        assert!(poll(race.as_mut()).is_pending());
        network.end(1, Err(io::ErrorKind::ConnectionRefused));
        assert!(poll(race.as_mut()).is_pending());
        network.end(0, Ok("six"));
        assert!(matches!(poll(race.as_mut()), Poll::Ready(Ok("six"))));
    }

    #[test]
    fn no_address_is_a_failure() {
        let network = Network::default();
        let mut race = pin!(race(&[], |address| network.dial(address), || network.head_start()));
        let Poll::Ready(Err(error)) = poll(race.as_mut()) else { panic!("it waits") };
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
    }
}
