//! Checking a name and a password, for the whole process in one place.
//!
//! Promise: a worker's thread computes no password hash: that happens in the blocking pool, at most
//! [`MOST_AT_ONCE`] at a time in the process, with at most [`MOST_WAITING`] waiting. What was found right costs
//! one keyed hash for a minute after. An unknown user costs what a wrong password does.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::LONGEST_PASSWORD;
use super::hash::Hash;
use super::memory::{Mark, Memory};
use super::users::Users;
use crate::failure::Failure;

/// Passwords that are checked at the same time: each takes a core for tens of milliseconds.
const MOST_AT_ONCE: usize = 2;

/// Checks that wait for their turn: about a second's worth.
const MOST_WAITING: usize = 64;

/// Checks for one client address (of IPv6, one network of 64 bits) that may be under way: who guesses from one place
/// does not take the places of all others.
const MOST_FROM_ONE: usize = 8;

/// How many right passwords are remembered, and for how many milliseconds. The mark of one contains the stored
/// hash, so a changed or removed user is not let in by it: the time only bounds how long a trace of a password
/// stays in memory.
const RIGHT: (usize, u64) = (4096, 60_000);

/// The same for wrong passwords. A second is enough that a client which repeats an old password with every
/// request does not take the turns of all others; no guess is repeated, so it does not help who guesses.
const WRONG: (usize, u64) = (1024, 1_000);

/// What a client says of itself.
#[derive(Clone, Copy)]
pub struct Claim<'a> {
    /// The name.
    pub user: &'a str,
    /// The password.
    pub password: &'a [u8],
}

/// Whom a claim came from: an IPv4 address, or an IPv6 network of 64 bits, which is what one customer has at least. A
/// number, since every exchange has room for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Neighbour(u64);

impl From<IpAddr> for Neighbour {
    fn from(address: IpAddr) -> Neighbour {
        Neighbour(match address.to_canonical() {
            IpAddr::V4(address) => u64::from(u32::from(address)),
            IpAddr::V6(address) => (u128::from(address) >> 64) as u64,
        })
    }
}

/// Whether a password is that of a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Right,
    Wrong,
}

impl Verdict {
    fn of(is_right: bool) -> Verdict {
        if is_right { Verdict::Right } else { Verdict::Wrong }
    }
}

/// Checks passwords. One for the process.
pub struct Verifier {
    keyed: Hmac<Sha256>,
    right: Memory,
    wrong: Memory,
    /// Moments are counted from the first one.
    start: OnceLock<Instant>,
    flights: Mutex<Flights>,
    /// Those that are checked and those that wait.
    places: Arc<Semaphore>,
    /// Those that are checked.
    turns: Arc<Semaphore>,
    /// How many are under way for an address.
    by_client: Arc<Mutex<HashMap<Neighbour, usize>>>,
}

/// Checks that are under way: who asks for the same thing waits for the same answer.
type Flights = HashMap<Mark, watch::Receiver<Option<Verdict>>>;

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier(..)")
    }
}

impl Verifier {
    /// A verifier; `secret` is the process's own.
    pub fn new(secret: &[u8]) -> Arc<Verifier> {
        // An HMAC key may have any length.
        let keyed = Hmac::<Sha256>::new_from_slice(secret).unwrap_or_else(|_| Hmac::new(&Default::default()));
        Arc::new(Verifier {
            keyed: keyed.chain_update(b"verified credentials"),
            right: Memory::new(RIGHT.0, RIGHT.1),
            wrong: Memory::new(WRONG.0, WRONG.1),
            start: OnceLock::new(),
            flights: Mutex::default(),
            places: Arc::new(Semaphore::new(MOST_AT_ONCE + MOST_WAITING)),
            turns: Arc::new(Semaphore::new(MOST_AT_ONCE)),
            by_client: Arc::default(),
        })
    }

    /// The known user whose name and password these are. Cancel-safe. `now` is the present, or a little before
    /// it; `client` is whom they came from.
    ///
    /// # Errors
    /// [`Failure::Unauthenticated`] when there is none, [`Failure::Overloaded`] when too many checks wait, of all
    /// clients or of this one.
    pub async fn admit(
        self: &Arc<Self>,
        users: &Users,
        claim: Claim<'_>,
        (now, client): (Instant, Neighbour),
    ) -> Result<Arc<str>, Failure> {
        if claim.password.len() > LONGEST_PASSWORD {
            return Err(Failure::Unauthenticated);
        }
        let known = users.find(claim.user);
        // Some user's hash stands in for that of an unknown one, the same for a name each time: neither the
        // time of one try nor that of several tells who is known.
        let stand_in = || users.any(self.mark(&[claim.user.as_bytes()])[0]);
        let Some(hash) = known.map(|(_, hash)| hash).or_else(stand_in) else {
            return Err(Failure::Unauthenticated);
        };
        let now = now.saturating_duration_since(*self.start.get_or_init(|| now)).as_millis() as u64;
        let mark = self.mark(&[claim.user.as_bytes(), hash.text().as_bytes(), claim.password]);
        let verdict = match self.recall(&mark, now) {
            Some(verdict) => verdict,
            // In a box, since it is rare: every exchange would carry its size.
            None => Box::pin(self.check((hash, client), claim.password, (mark, now))).await?,
        };
        match (known, verdict) {
            (Some((name, _)), Verdict::Right) => Ok(Arc::clone(name)),
            _ => Err(Failure::Unauthenticated),
        }
    }

    /// Stands for these parts: no other parts have the same mark.
    fn mark(&self, parts: &[&[u8]]) -> Mark {
        let mut keyed = self.keyed.clone();
        for part in parts {
            keyed.update(&(part.len() as u64).to_le_bytes());
            keyed.update(part);
        }
        let bytes = keyed.finalize().into_bytes();
        std::array::from_fn(|word| {
            bytes[word * 8..][..8].iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
        })
    }

    /// A number that nobody outside knows, the same for a purpose in every process with the same secret.
    pub fn number(&self, purpose: &[u8]) -> u64 {
        self.mark(&[b"number", purpose])[0]
    }

    fn recall(&self, mark: &Mark, now: u64) -> Option<Verdict> {
        if self.right.recalls(mark, now) {
            return Some(Verdict::Right);
        }
        self.wrong.recalls(mark, now).then_some(Verdict::Wrong)
    }

    async fn check(
        self: &Arc<Self>,
        (hash, client): (&Arc<Hash>, Neighbour),
        password: &[u8],
        (mark, now): (Mark, u64),
    ) -> Result<Verdict, Failure> {
        loop {
            let mut heard = match self.join(mark, now) {
                Joined::Known(verdict) => return Ok(verdict),
                Joined::Theirs(heard) => heard,
                Joined::Ours(flight, mut heard) => {
                    // When this is dropped while it waits, the flight ends and one of those that joined it
                    // leads the next one.
                    let permits = self.turn(client).await?;
                    let (hash, password) = (Arc::clone(hash), Box::<[u8]>::from(password));
                    tokio::task::spawn_blocking(move || {
                        flight.land(Verdict::of(hash.is_of(&password)), now);
                        drop(permits);
                    });
                    // It ends without a word only by a panic in a library, which would come again.
                    let verdict = heard.wait_for(Option::is_some).await.ok().and_then(|verdict| *verdict);
                    return verdict.ok_or(Failure::Internal);
                }
            };
            if let Ok(verdict) = heard.wait_for(Option::is_some).await
                && let Some(verdict) = *verdict
            {
                return Ok(verdict);
            }
        }
    }

    /// A place and a turn. The permits go with the work, which goes on when nobody waits for it any more.
    async fn turn(&self, client: Neighbour) -> Result<Turn, Failure> {
        let share = Share::take(&self.by_client, client)?;
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Failure::Overloaded)?;
        // They are never closed.
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| Failure::Internal)?;
        Ok(Turn { _place: place, _turn: turn, _share: share })
    }

    fn join(self: &Arc<Self>, mark: Mark, now: u64) -> Joined {
        let mut flights = self.flights();
        // It may have landed since the look without the lock.
        if let Some(verdict) = self.recall(&mark, now) {
            return Joined::Known(verdict);
        }
        match flights.entry(mark) {
            Entry::Occupied(flight) => Joined::Theirs(flight.get().clone()),
            Entry::Vacant(place) => {
                let (sender, heard) = watch::channel(None);
                place.insert(heard.clone());
                Joined::Ours(Flight { verifier: Arc::clone(self), mark, sender }, heard)
            }
        }
    }

    fn flights(&self) -> MutexGuard<'_, Flights> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What goes with a check and is given back after it.
struct Turn {
    _place: OwnedSemaphorePermit,
    _turn: OwnedSemaphorePermit,
    _share: Share,
}

/// One of the places that a client may have.
struct Share {
    all: Arc<Mutex<HashMap<Neighbour, usize>>>,
    client: Neighbour,
}

impl Share {
    fn take(all: &Arc<Mutex<HashMap<Neighbour, usize>>>, client: Neighbour) -> Result<Share, Failure> {
        let mut counts = all.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(client).or_default();
        if *count >= MOST_FROM_ONE {
            return Err(Failure::Overloaded);
        }
        *count += 1;
        Ok(Share { all: Arc::clone(all), client })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut counts = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = counts.entry(self.client) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

enum Joined {
    /// Somebody found out in the meantime.
    Known(Verdict),
    /// Somebody is finding out.
    Theirs(watch::Receiver<Option<Verdict>>),
    /// It is ours to find out.
    Ours(Flight, watch::Receiver<Option<Verdict>>),
}

/// A check that is under way. It is over when this is dropped, which cannot be forgotten on any way out.
struct Flight {
    verifier: Arc<Verifier>,
    mark: Mark,
    sender: watch::Sender<Option<Verdict>>,
}

impl Flight {
    fn land(self, verdict: Verdict, now: u64) {
        let memory = match verdict {
            Verdict::Right => &self.verifier.right,
            Verdict::Wrong => &self.verifier.wrong,
        };
        // Only one thread at a time may write.
        let flights = self.verifier.flights();
        memory.remember(&self.mark, now);
        drop(flights);
        self.sender.send_replace(Some(verdict));
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.verifier.flights().remove(&self.mark);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::future::Future as _;
    use std::time::Duration;

    use super::*;
    use crate::credentials::StoredHash;
    use crate::problem::{At, Problems};

    fn users(list: &[(&str, &str)]) -> Users {
        let table: BTreeMap<_, _> =
            list.iter().map(|(name, hash)| ((*name).to_owned(), StoredHash((*hash).to_owned()))).collect();
        Users::listed(&table, &At::root(), &mut Problems::new())
    }

    fn anna() -> Users {
        // "correct horse"
        users(&[("anna", "$2b$04$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e")])
    }

    fn claim<'a>(user: &'a str, password: &'a str) -> Claim<'a> {
        Claim { user, password: password.as_bytes() }
    }

    #[allow(clippy::disallowed_methods, reason = "an Instant can only be made from the clock")]
    fn now() -> Instant {
        Instant::now()
    }

    const HOME: Neighbour = Neighbour(1);

    const REFUSED: Result<Arc<str>, Failure> = Err(Failure::Unauthenticated);

    #[tokio::test]
    async fn a_known_user_with_the_right_password_is_let_in_and_nobody_else() {
        let (verifier, users, now) = (Verifier::new(b"s"), anna(), now());
        for _ in 0..2 {
            assert_eq!(
                verifier.admit(&users, claim("anna", "correct horse"), (now, HOME)).await,
                Ok("anna".into())
            );
            for (user, password) in [
                ("anna", "wrong"),
                ("anna", ""),
                ("", "correct horse"),
                ("bob", "correct horse"),
                ("Anna", "x"),
            ] {
                assert_eq!(
                    verifier.admit(&users, claim(user, password), (now, HOME)).await,
                    REFUSED,
                    "{user} {password}"
                );
            }
            let long = "x".repeat(LONGEST_PASSWORD + 1);
            assert_eq!(verifier.admit(&users, claim("anna", &long), (now, HOME)).await, REFUSED);
        }
        assert_eq!(
            verifier.admit(&Users::default(), claim("anna", "correct horse"), (now, HOME)).await,
            REFUSED
        );
    }

    /// The thread that has checked a password gives its place back a moment after the verdict.
    async fn all_places(verifier: &Verifier) {
        while verifier.places.available_permits() < 66 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn what_is_remembered_needs_no_turn_and_is_forgotten_in_time() {
        let (verifier, users, now) = (Verifier::new(b"s"), anna(), now());
        let at = |millis| now + Duration::from_millis(millis);
        assert!(verifier.admit(&users, claim("anna", "correct horse"), (now, HOME)).await.is_ok());
        for (user, password) in [("anna", "wrong"), ("bob", "x")] {
            assert_eq!(verifier.admit(&users, claim(user, password), (now, HOME)).await, REFUSED);
        }
        all_places(&verifier).await;
        // From here on whatever needs a check is turned away.
        let _all = verifier.places.clone().try_acquire_many_owned(66).unwrap();
        assert!(verifier.admit(&users, claim("anna", "correct horse"), (at(59_999), HOME)).await.is_ok());
        for (user, password) in [("anna", "wrong"), ("bob", "x")] {
            assert_eq!(verifier.admit(&users, claim(user, password), (at(999), HOME)).await, REFUSED);
            let later = verifier.admit(&users, claim(user, password), (at(1_000), HOME)).await;
            assert_eq!(later, Err(Failure::Overloaded));
        }
        let later = verifier.admit(&users, claim("anna", "correct horse"), (at(60_000), HOME)).await;
        assert_eq!(later, Err(Failure::Overloaded));
        assert!(verifier.flights().is_empty(), "nothing stays behind");
    }

    #[tokio::test]
    async fn another_hash_is_another_matter() {
        let (verifier, now) = (Verifier::new(b"s"), now());
        assert!(verifier.admit(&anna(), claim("anna", "correct horse"), (now, HOME)).await.is_ok());
        // The {SHA} of "password".
        let changed = users(&[("anna", "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=")]);
        assert_eq!(verifier.admit(&changed, claim("anna", "correct horse"), (now, HOME)).await, REFUSED);
        assert!(verifier.admit(&changed, claim("anna", "password"), (now, HOME)).await.is_ok());
        assert_eq!(verifier.admit(&anna(), claim("anna", "password"), (now, HOME)).await, REFUSED);
    }

    #[tokio::test]
    async fn one_check_answers_all_who_ask_the_same() {
        let (verifier, users, now) = (Verifier::new(b"s"), anna(), now());
        let turns = verifier.turns.clone().try_acquire_many_owned(2).unwrap();
        let ask = || verifier.admit(&users, claim("anna", "correct horse"), (now, HOME));
        let release = async {
            while verifier.places.available_permits() == 66 {
                tokio::task::yield_now().await;
            }
            assert_eq!(verifier.places.available_permits(), 65);
            drop(turns);
        };
        let (one, two, three, ()) = tokio::join!(ask(), ask(), ask(), release);
        assert!(one.is_ok() && two.is_ok() && three.is_ok());
    }

    #[tokio::test]
    async fn when_the_one_who_asked_first_leaves_another_takes_over() {
        let (verifier, users, now) = (Verifier::new(b"s"), anna(), now());
        let turns = verifier.turns.clone().try_acquire_many_owned(2).unwrap();
        let mut first = Box::pin(verifier.admit(&users, claim("anna", "correct horse"), (now, HOME)));
        tokio::select! {
            biased;
            _ = &mut first => panic!("it has no turn"),
            () = std::future::ready(()) => {}
        }
        let second = verifier.admit(&users, claim("anna", "correct horse"), (now, HOME));
        let leave = async {
            drop(first);
            drop(turns);
        };
        let (second, ()) = tokio::join!(second, leave);
        assert!(second.is_ok());
        all_places(&verifier).await;
        assert!(verifier.flights().is_empty());
    }

    #[tokio::test]
    async fn one_client_does_not_take_the_places_of_all_others() {
        let (verifier, users, now) = (Verifier::new(b"s"), anna(), now());
        let turns = verifier.turns.clone().try_acquire_many_owned(2).unwrap();
        let address = |text: &str| Neighbour::from(text.parse::<IpAddr>().unwrap());
        let guesses: Vec<String> = (0..MOST_FROM_ONE).map(|guess| guess.to_string()).collect();
        let mut waiting = Vec::new();
        for guess in &guesses {
            let mut asked =
                Box::pin(verifier.admit(&users, claim("anna", guess), (now, address("2001:db8::1"))));
            assert!(
                std::future::poll_fn(|cx| std::task::Poll::Ready(asked.as_mut().poll(cx).is_pending())).await
            );
            waiting.push(asked);
        }
        let neighbour = (now, address("2001:db8::2"));
        assert_eq!(verifier.admit(&users, claim("anna", "more"), neighbour).await, Err(Failure::Overloaded));
        let elsewhere = (now, address("2001:db8:0:1::1"));
        let mut other = Box::pin(verifier.admit(&users, claim("anna", "correct horse"), elsewhere));
        let first = std::future::poll_fn(|cx| std::task::Poll::Ready(other.as_mut().poll(cx))).await;
        assert!(first.is_pending(), "it has a place, behind those that wait");
        drop((waiting, turns));
        assert!(other.await.is_ok());
        all_places(&verifier).await;
        assert!(verifier.by_client.lock().unwrap().is_empty(), "nothing stays behind");
    }

    #[test]
    fn parts_cannot_be_moved_from_one_to_the_next() {
        let verifier = Verifier::new(b"s");
        assert_ne!(verifier.mark(&[b"ab", b"c"]), verifier.mark(&[b"a", b"bc"]));
        assert_ne!(verifier.mark(&[b"a"]), Verifier::new(b"t").mark(&[b"a"]));
    }
}
