//! Flow control of one stream: bytes sent and not acknowledged, bytes received and not consumed.

/// A sender stops above this.
const STOP: u64 = 64 * 1024;
/// A stopped sender goes on below this.
const GO: u64 = 16 * 1024;
/// Acknowledgements are gathered up to this: half of what a stopped sender may have outstanding, so that
/// gathering never keeps it stopped.
const GATHER: u64 = 8 * 1024;

/// What we send.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sending {
    outstanding: u64,
    is_stopped: bool,
}

impl Sending {
    pub(super) fn sent(&mut self, count: usize) {
        self.outstanding += count as u64;
        self.is_stopped = self.is_stopped || self.outstanding > STOP;
    }

    /// True when this ends a stop.
    pub(super) fn acknowledged(&mut self, count: u32) -> bool {
        self.outstanding = self.outstanding.saturating_sub(u64::from(count));
        let resumes = self.is_stopped && self.outstanding < GO;
        self.is_stopped = self.is_stopped && !resumes;
        resumes
    }

    pub(super) fn may_send(self) -> bool {
        !self.is_stopped
    }
}

/// What we receive.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Receiving {
    waiting: u64,
    gathered: u64,
}

impl Receiving {
    /// Bytes that wait to be consumed now.
    pub(super) fn received(&mut self, count: usize) -> u64 {
        self.waiting += count as u64;
        self.waiting
    }

    /// What to acknowledge, if it is worth a frame.
    pub(super) fn consumed(&mut self, count: usize) -> Option<u32> {
        // No more than came, whatever the caller counts.
        let count = (count as u64).min(self.waiting);
        self.waiting -= count;
        self.gathered += count;
        if self.gathered < GATHER {
            return None;
        }
        u32::try_from(std::mem::take(&mut self.gathered)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_stops_above_64_kib_and_goes_on_below_16() {
        let mut sending = Sending::default();
        sending.sent(65_536);
        assert!(sending.may_send());
        sending.sent(1);
        assert!(!sending.may_send());
        assert!(!sending.acknowledged(65_537 - 16_384));
        assert!(!sending.may_send());
        assert!(sending.acknowledged(1));
        assert!(sending.may_send() && !sending.acknowledged(u32::MAX));
        sending.sent(10);
        assert_eq!(sending.outstanding, 10);
    }

    #[test]
    fn acknowledgements_are_gathered_and_never_more_than_what_came() {
        let mut receiving = Receiving::default();
        assert_eq!(receiving.received(20_000), 20_000);
        assert_eq!(receiving.consumed(8191), None);
        assert_eq!(receiving.consumed(1), Some(8192));
        assert_eq!(receiving.consumed(1_000_000), Some(20_000 - 8192));
        assert_eq!(receiving.consumed(1_000_000), None);
    }
}
