//! How many frames of each kind a client may send: a burst, and a rate at which it fills up again.
//!
//! The numbers follow one rule: a client that works as designed never reaches them, and one that uses them up
//! for hours costs at most a percent or two of a core, which is less than the same bytes cost us as requests.

/// An event's worth of credit: a budget refills by events per second times nanoseconds.
const EVENT: u64 = 1_000_000_000;

/// How often something may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// So often at once.
    pub burst: u32,
    /// So often in every second after that.
    pub per_second: u32,
}

/// What one connection may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budgets {
    /// RST_STREAM (rapid reset, CVE-2023-44487). Every stream opened gives half a reset back: cancelling every
    /// other request is fine at any rate. A browser that closes a tab, or a proxy whose clients leave, cancels
    /// all of its open streams at once; a search box that cancels each request for the next makes some ten a
    /// second.
    pub resets: Budget,
    /// PING without ACK (CVE-2019-9512). Keep-alive pings come every ten seconds at most, but gRPC libraries
    /// measure bandwidth with one PING per round trip while an answer arrives: 10,000 a second at 100 us.
    pub pings: Budget,
    /// SETTINGS without ACK (CVE-2019-9515), counted once more for every 16 settings in it (a long list is as
    /// much work as many frames). A client sends one at the start; one that adapts its window some ten later.
    pub settings: Budget,
    /// PRIORITY and PRIORITY_UPDATE (CVE-2019-9513). Every stream opened gives two back. Older Firefox begins
    /// with six; browsers reprioritise what is open when a tab changes: a few hundred at most.
    pub priorities: Budget,
    /// WINDOW_UPDATE. Careful clients send one per half window, naive ones two per DATA frame of 16 KiB:
    /// 50,000 a second are 400 MB a second for the naive.
    pub window_updates: Budget,
    /// DATA without content and without END_STREAM (CVE-2019-9518). Some libraries flush so now and then; the frame
    /// layer takes a hundred of them from a connection and no more.
    pub empty_data: Budget,
    /// DATA of one to four bytes without END_STREAM: shorter than the prefix of a gRPC message or a masked
    /// WebSocket frame. Somebody types in a tunnel: tens a second; a program that writes byte by byte: thousands.
    pub tiny_data: Budget,
    /// Everything that carries no request: unknown types, acknowledgements, GOAWAY, frames a client may not
    /// send. Browsers send one of an invented type per connection (RFC 8701); we ask for few acknowledgements.
    pub others: Budget,
    /// CONTINUATION frames in one header block (CVE-2024-27316). Three carry what `header_block` allows; the frame
    /// layer takes no more than five either.
    pub continuations: u32,
    /// Bytes of one header block, compressed, padding included. Four times the head that HTTP/1 accepts, so
    /// that a head which is merely too large still gets its 431.
    pub header_block: u32,
    /// Bytes of one frame's payload: what our SETTINGS_MAX_FRAME_SIZE says.
    pub frame_size: u32,
}

impl Default for Budgets {
    fn default() -> Budgets {
        Budgets {
            resets: Budget { burst: 500, per_second: 50 },
            pings: Budget { burst: 1_000, per_second: 10_000 },
            settings: Budget { burst: 100, per_second: 5 },
            priorities: Budget { burst: 1_000, per_second: 100 },
            window_updates: Budget { burst: 10_000, per_second: 50_000 },
            empty_data: Budget { burst: 95, per_second: 0 },
            tiny_data: Budget { burst: 10_000, per_second: 10_000 },
            others: Budget { burst: 200, per_second: 50 },
            continuations: 5,
            header_block: 64 * 1024,
            frame_size: 16 * 1024,
        }
    }
}

/// What is left of a budget.
#[derive(Clone, Copy, Debug)]
pub(super) struct Credit {
    /// In billionths of an event.
    left: u64,
    /// When it was last reckoned, in nanoseconds.
    at: u64,
}

impl Credit {
    pub(super) fn full(budget: Budget) -> Credit {
        Credit { left: u64::from(budget.burst) * EVENT, at: 0 }
    }

    /// Takes so many events off; false when there are not that many left.
    #[inline]
    pub(super) fn take(&mut self, budget: Budget, events: u32, now: u64) -> bool {
        let most = u64::from(budget.burst) * EVENT;
        let gained = now.saturating_sub(self.at).saturating_mul(u64::from(budget.per_second));
        self.at = self.at.max(now);
        self.left = self.left.saturating_add(gained).min(most);
        match self.left.checked_sub(u64::from(events) * EVENT) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }

    /// Gives so many half events back.
    #[inline]
    pub(super) fn give(&mut self, budget: Budget, halves: u32) {
        let most = u64::from(budget.burst) * EVENT;
        self.left = self.left.saturating_add(u64::from(halves) * (EVENT / 2)).min(most);
    }
}
