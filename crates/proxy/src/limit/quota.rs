//! Quotas: how many requests there may be in a period of the calendar.
//!
//! Promise: exact to the request, on one machine and over gateways that share a Redis server.

use std::sync::Arc;
use std::time::Duration;

use sluice_http::RequestHead;
use sluice_traffic::limit::{Decision, Permit};

use super::book::{Book, Mark as LocalMark};
use super::key::{Key, Per};
use super::record::Manner;
use super::remote::{Mark, Remote};
use super::sheet::Times;
use super::{Limits, OnRedisFailure, Uncounted};
use crate::exchange::Exchange;
use crate::failure::Failure;
use crate::observe::timestamp::days_left_of_month;
use crate::value::Span;
use crate::world::World;

const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;

/// A quota that runs.
#[derive(Debug)]
pub struct Quota {
    limit: u64,
    span: Span,
    /// How it is applied.
    pub manner: Manner,
    /// What counts on this machine. In a box, as the next.
    here: Option<Box<Here>>,
    /// In a box, as in [`RateLimit`](super::rate::RateLimit).
    remote: Option<Box<Remote>>,
}

/// The part of a quota that is on this machine.
#[derive(Debug)]
struct Here {
    book: Arc<Book>,
    mark: LocalMark,
}

/// A key, as both places of counting know it.
#[derive(Clone, Copy, Debug)]
struct Subject {
    local: u64,
    mark: Mark,
    times: Times,
}

impl Quota {
    /// The quota that `identity` defines: with the same one it goes on where it was, whatever its limit is now.
    ///
    /// # Errors
    /// What has been counted on this machine cannot be read.
    pub fn new(
        (limit, span, manner): (u64, Span, Manner),
        identity: &str,
        limits: &Limits,
        remote: Option<Box<Remote>>,
    ) -> Result<Quota, String> {
        let counts_here = remote.as_ref().is_none_or(|remote| remote.on_failure == OnRedisFailure::Local);
        let book = counts_here.then(|| limits.book()).transpose()?;
        let here = book.map(|book| Box::new(Here { mark: book.mark(identity), book }));
        Ok(Quota { limit, span, manner, here, remote })
    }

    /// Takes one for a request.
    ///
    /// # Errors
    /// It is refused.
    pub async fn enforce(
        &self,
        per: &Per,
        world: &World,
        (exchange, head): (&mut Exchange, &RequestHead),
    ) -> Result<(), Failure> {
        let now = world.unix(world.clock.now()).as_secs();
        let times = Times { now, end: end(self.span, now), length: length(self.span).as_secs() };
        let subject = per.read(exchange, head, |key| self.subject(key, times));
        let decided = match &self.remote {
            None => self.count_here(&subject).map(Some),
            // In a box, since it is large: every exchange would carry its size.
            Some(remote) => Box::pin(self.count_there(remote, &subject)).await,
        };
        // A quota never makes anybody wait.
        exchange.limits.note(&self.manner, decided).map(|_| ())
    }

    fn subject(&self, key: Key<'_>, times: Times) -> Subject {
        let local = self.here.as_ref().map_or(0, |here| here.mark.hash(key));
        let mark = self.remote.as_ref().map_or(Mark::default(), |remote| remote.mark(key));
        // Another period has another name in Redis: gateways whose clocks differ by a second agree on it.
        let period = u128::from_be_bytes(mark) ^ u128::from(times.end) << 64;
        Subject { local, mark: period.to_be_bytes(), times }
    }

    fn count_here(&self, subject: &Subject) -> Result<Decision, Uncounted> {
        let Here { book, .. } = self.here.as_deref().ok_or(Uncounted)?;
        let left = book.take(subject.local, self.limit, subject.times).map_err(|_| Uncounted)?;
        let reset = Duration::from_secs(left.end.saturating_sub(subject.times.now));
        let permit = left.remaining.map_or(Permit::Refused(reset), |_| Permit::Now);
        Ok(Decision { permit, remaining: left.remaining.unwrap_or(0), reset })
    }

    async fn count_there(&self, remote: &Remote, subject: &Subject) -> Result<Option<Decision>, Uncounted> {
        let left = Duration::from_secs(subject.times.end.saturating_sub(subject.times.now));
        match (remote.take_of_quota(self.limit, left, &subject.mark).await, remote.on_failure) {
            (Ok(decision), _) => Ok(Some(decision)),
            (Err(_), OnRedisFailure::Local) => self.count_here(subject).map(Some),
            (Err(_), OnRedisFailure::Allow) => Ok(None),
            (Err(_), OnRedisFailure::Deny) => Err(Uncounted),
        }
    }
}

/// When the period ends that `now` is in; both are seconds since 1970.
fn end(span: Span, now: u64) -> u64 {
    let (today, stretch) = (now / DAY, |length: u64| (now / length + 1) * length);
    match span {
        Span::Hour => stretch(HOUR),
        Span::Day => stretch(DAY),
        // 1970-01-01 was a Thursday.
        Span::Week => ((today + 3) / 7 * 7 + 4) * DAY,
        Span::Month => (today + days_left_of_month(today)) * DAY,
        Span::Of(period) => stretch(period.0.as_secs().max(1)),
    }
}

/// How long a period is, for answers; a month counts as 30 days.
pub fn length(span: Span) -> Duration {
    Duration::from_secs(match span {
        Span::Hour => HOUR,
        Span::Day => DAY,
        Span::Week => 7 * DAY,
        Span::Month => 30 * DAY,
        Span::Of(period) => period.0.as_secs(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::parse_time;

    #[test]
    fn periods_are_those_of_the_calendar_in_utc() {
        let unix = |text: &str| parse_time(text).unwrap();
        for (span, now, expected) in [
            ("hour", "2026-02-03T04:59:59Z", "2026-02-03T05:00:00Z"),
            ("day", "2026-02-28T00:00:00Z", "2026-03-01T00:00:00Z"),
            // A Sunday, and the Monday after it.
            ("week", "2026-02-01T23:59:59Z", "2026-02-02T00:00:00Z"),
            ("week", "2026-02-02T00:00:00Z", "2026-02-09T00:00:00Z"),
            ("month", "2028-02-29T12:00:00Z", "2028-03-01T00:00:00Z"),
            ("month", "2026-12-31T23:59:59Z", "2027-01-01T00:00:00Z"),
            ("month", "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"),
            ("90m", "1970-01-01T01:29:59Z", "1970-01-01T01:30:00Z"),
            ("90m", "1970-01-01T01:30:00Z", "1970-01-01T03:00:00Z"),
        ] {
            assert_eq!(end(span.parse().unwrap(), unix(now)), unix(expected), "{span} {now}");
        }
    }
}
