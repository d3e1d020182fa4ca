//! Follows the frames a client sends, without decoding them, and says when they are an attack.
//!
//! Promise: the verdict depends on the frames and on the time, not on the pieces they arrive in; a frame costs
//! a few nanoseconds and a connection a fixed number of bytes. It judges only what frames cost: what is in
//! them, and whether they may stand where they stand, is the protocol engine's business.

use super::budget::{Budgets, Credit};
use crate::reasons::reasons;

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Length, type, flags, stream (RFC 9113 section 4.1).
const HEADER: usize = 9;
/// DATA with less content than this is tiny.
const TINY: u32 = 5;
/// SETTINGS longer than this count more than once: 16 settings of six bytes.
const SETTINGS_UNIT: u32 = 96;

const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const PRIORITY: u8 = 0x2;
const RST_STREAM: u8 = 0x3;
const SETTINGS: u8 = 0x4;
const PING: u8 = 0x6;
const WINDOW_UPDATE: u8 = 0x8;
const CONTINUATION: u8 = 0x9;
/// RFC 9218 section 7.1.
const PRIORITY_UPDATE: u8 = 0x10;

/// Also ACK of SETTINGS and PING.
const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;

reasons! {
    /// Why a client's frames were refused: the connection is to be closed with ENHANCE_YOUR_CALM.
    pub enum Flood {
        BadPreface "h2-bad-preface" "the connection does not begin with the HTTP/2 preface",
        FrameTooLarge "h2-frame-too-large" "a frame is larger than we allow",
        RapidReset "h2-rapid-reset" "the client resets too many of its streams",
        MadeYouReset "h2-made-you-reset" "the client makes us reset too many of its streams",
        Ping "h2-ping-flood" "too many PING frames",
        Settings "h2-settings-flood" "too many SETTINGS frames",
        Priority "h2-priority-flood" "too many PRIORITY frames",
        WindowUpdate "h2-window-update-flood" "too many WINDOW_UPDATE frames",
        EmptyData "h2-empty-data-flood" "too many DATA frames without content",
        TinyData "h2-tiny-data-flood" "too many DATA frames with hardly any content",
        Continuation "h2-continuation-flood" "a header block comes in too many frames",
        HeaderBlock "h2-header-block-too-large" "a header block is larger than allowed",
        Other "h2-useless-frame-flood" "too many frames of no use",
    }
}

/// Where in the stream of frames the next byte stands.
#[derive(Clone, Copy, Debug)]
enum Part {
    /// So many bytes of the preface have been seen.
    Preface(usize),
    /// So many bytes of a frame's header have been seen.
    Header(usize),
    /// The pad length of a DATA frame, whose payload has so many bytes in all.
    PadLength(u32),
    /// So many bytes of a payload are left.
    Payload(u32),
}

/// One header block: HEADERS and what continues it.
#[derive(Clone, Copy, Debug, Default)]
struct Block {
    is_open: bool,
    bytes: u32,
    continuations: u32,
}

/// What is left of each budget.
#[derive(Clone, Copy, Debug)]
struct Credits {
    resets: Credit,
    pings: Credit,
    settings: Credit,
    priorities: Credit,
    window_updates: Credit,
    empty_data: Credit,
    tiny_data: Credit,
    others: Credit,
}

/// The watch over one direction of one connection: from the client to us.
#[derive(Clone, Debug)]
pub struct Watch {
    budgets: Budgets,
    credits: Credits,
    part: Part,
    /// The frame header that is being collected, or was last complete.
    header: [u8; HEADER],
    block: Block,
    last_stream: u32,
    /// The time of the bytes last fed.
    now: u64,
    verdict: Result<(), Flood>,
}

impl Watch {
    /// A watch over a connection that begins with its preface.
    pub fn new(budgets: &Budgets) -> Watch {
        let full = Credit::full;
        Watch {
            budgets: *budgets,
            credits: Credits {
                resets: full(budgets.resets),
                pings: full(budgets.pings),
                settings: full(budgets.settings),
                priorities: full(budgets.priorities),
                window_updates: full(budgets.window_updates),
                empty_data: full(budgets.empty_data),
                tiny_data: full(budgets.tiny_data),
                others: full(budgets.others),
            },
            part: Part::Preface(0),
            header: [0; HEADER],
            block: Block::default(),
            last_stream: 0,
            now: 0,
            verdict: Ok(()),
        }
    }

    /// Takes the next bytes the client sent, all of them in order and each once. `now` is in nanoseconds
    /// since any moment that stays the same for the connection.
    ///
    /// # Errors
    /// A [`Flood`] when a budget is used up; from then on always the same one.
    pub fn feed(&mut self, bytes: &[u8], now: u64) -> Result<(), Flood> {
        self.verdict?;
        self.now = self.now.max(now);
        self.verdict = self.follow(bytes);
        self.verdict
    }

    fn follow(&mut self, mut bytes: &[u8]) -> Result<(), Flood> {
        while let Some(&first) = bytes.first() {
            let taken = match self.part {
                Part::Preface(seen) => self.preface(seen, bytes)?,
                Part::Header(seen) => self.collect(seen, bytes)?,
                Part::PadLength(length) => {
                    self.data((length - 1).saturating_sub(u32::from(first)))?;
                    self.payload(length - 1);
                    1
                }
                Part::Payload(left) => {
                    let taken = bytes.len().min(left as usize);
                    self.payload(left - taken as u32);
                    taken
                }
            };
            bytes = &bytes[taken..];
        }
        Ok(())
    }

    fn preface(&mut self, seen: usize, bytes: &[u8]) -> Result<usize, Flood> {
        let wanted = &PREFACE[seen..];
        let taken = bytes.len().min(wanted.len());
        if bytes[..taken] != wanted[..taken] {
            return Err(Flood::BadPreface);
        }
        self.part = if taken == wanted.len() { Part::Header(0) } else { Part::Preface(seen + taken) };
        Ok(taken)
    }

    /// Collects a frame's header, and judges the frame when it is complete.
    fn collect(&mut self, seen: usize, bytes: &[u8]) -> Result<usize, Flood> {
        let taken = bytes.len().min(HEADER - seen);
        self.header[seen..seen + taken].copy_from_slice(&bytes[..taken]);
        match seen + taken == HEADER {
            true => self.frame()?,
            false => self.part = Part::Header(seen + taken),
        }
        Ok(taken)
    }

    fn payload(&mut self, left: u32) {
        self.part = if left == 0 { Part::Header(0) } else { Part::Payload(left) };
    }

    /// Judges the frame whose header is complete.
    #[inline]
    fn frame(&mut self) -> Result<(), Flood> {
        let [l2, l1, l0, kind, flags, s3, s2, s1, s0] = self.header;
        let length = u32::from_be_bytes([0, l2, l1, l0]);
        if length > self.budgets.frame_size {
            return Err(Flood::FrameTooLarge);
        }
        self.payload(length);
        let (budgets, credits, now) = (&self.budgets, &mut self.credits, self.now);
        let has = |flag: u8| flags & flag != 0;
        let (may, flood) = match kind {
            DATA if has(END_STREAM) => return Ok(()),
            DATA if has(PADDED) && length > 0 => {
                self.part = Part::PadLength(length);
                return Ok(());
            }
            DATA => return self.data(length),
            HEADERS => {
                self.open(u32::from_be_bytes([s3 & 0x7F, s2, s1, s0]));
                self.block = Block { is_open: !has(END_HEADERS), bytes: length, continuations: 0 };
                return self.check_block();
            }
            CONTINUATION if self.block.is_open => {
                self.block.is_open = !has(END_HEADERS);
                // No overflow: it was within the limit before, and a frame's length has 24 bits.
                self.block.bytes = self.block.bytes.saturating_add(length);
                self.block.continuations += 1;
                return self.check_block();
            }
            RST_STREAM => (credits.resets.take(budgets.resets, 1, now), Flood::RapidReset),
            SETTINGS if !has(ACK) => {
                (credits.settings.take(budgets.settings, 1 + length / SETTINGS_UNIT, now), Flood::Settings)
            }
            PING if !has(ACK) => (credits.pings.take(budgets.pings, 1, now), Flood::Ping),
            PRIORITY | PRIORITY_UPDATE => {
                (credits.priorities.take(budgets.priorities, 1, now), Flood::Priority)
            }
            WINDOW_UPDATE => {
                (credits.window_updates.take(budgets.window_updates, 1, now), Flood::WindowUpdate)
            }
            _ => (credits.others.take(budgets.others, 1, now), Flood::Other),
        };
        if may { Ok(()) } else { Err(flood) }
    }

    /// Judges a DATA frame without END_STREAM by its content, without padding.
    #[inline]
    fn data(&mut self, content: u32) -> Result<(), Flood> {
        let (budgets, credits) = (&self.budgets, &mut self.credits);
        let (may, flood) = match content {
            0 => (credits.empty_data.take(budgets.empty_data, 1, self.now), Flood::EmptyData),
            1..TINY => (credits.tiny_data.take(budgets.tiny_data, 1, self.now), Flood::TinyData),
            _ => return Ok(()),
        };
        if may { Ok(()) } else { Err(flood) }
    }

    /// A HEADERS frame came: if it opens a stream, it gives some of the budgets something back.
    fn open(&mut self, stream: u32) {
        // Streams of clients have odd and rising numbers (RFC 9113 section 5.1.1); the rest are trailers.
        if stream > self.last_stream && stream % 2 == 1 {
            self.last_stream = stream;
            self.credits.resets.give(self.budgets.resets, 1);
            self.credits.priorities.give(self.budgets.priorities, 4);
        }
    }

    fn check_block(&self) -> Result<(), Flood> {
        if self.block.bytes > self.budgets.header_block {
            return Err(Flood::HeaderBlock);
        }
        if self.block.continuations > self.budgets.continuations {
            return Err(Flood::Continuation);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::super::Budget;
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    fn begun(budgets: &Budgets) -> Watch {
        let mut watch = Watch::new(budgets);
        watch.feed(PREFACE, 0).unwrap();
        watch
    }

    /// Feeds a frame over and over; how many were accepted, up to 100,000, and the end.
    fn repeat(watch: &mut Watch, bytes: &[u8], now: u64) -> (u32, Result<(), Flood>) {
        for count in 0..100_000 {
            if let Err(flood) = watch.feed(bytes, now) {
                return (count, Err(flood));
            }
        }
        (100_000, Ok(()))
    }

    /// A frame of each kind that has a budget, with the budget and the verdict.
    fn floods(budgets: &Budgets) -> Vec<(Vec<u8>, Budget, Flood)> {
        let b = budgets;
        vec![
            (frame(RST_STREAM, 0, 1, &[0; 4]), b.resets, Flood::RapidReset),
            (frame(PING, 0, 0, &[0; 8]), b.pings, Flood::Ping),
            (frame(SETTINGS, 0, 0, &[]), b.settings, Flood::Settings),
            (frame(PRIORITY, 0, 1, &[0; 5]), b.priorities, Flood::Priority),
            (frame(PRIORITY_UPDATE, 0, 0, &[0; 9]), b.priorities, Flood::Priority),
            (frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]), b.window_updates, Flood::WindowUpdate),
            (frame(DATA, 0, 1, &[]), b.empty_data, Flood::EmptyData),
            (frame(DATA, PADDED, 1, &[]), b.empty_data, Flood::EmptyData),
            (frame(DATA, PADDED, 1, &[0]), b.empty_data, Flood::EmptyData),
            (frame(DATA, PADDED, 1, &[9, 0, 0, 0, 0, 0, 0, 0, 0, 0]), b.empty_data, Flood::EmptyData),
            (frame(DATA, PADDED, 1, &[200, 0, 0]), b.empty_data, Flood::EmptyData),
            (frame(DATA, 0, 1, b"x"), b.tiny_data, Flood::TinyData),
            (frame(DATA, 0, 1, b"1234"), b.tiny_data, Flood::TinyData),
            (frame(DATA, PADDED, 1, &[3, b'x', 0, 0, 0]), b.tiny_data, Flood::TinyData),
            (frame(PING, ACK, 0, &[0; 8]), b.others, Flood::Other),
            (frame(SETTINGS, ACK, 0, &[]), b.others, Flood::Other),
            (frame(0x5, END_HEADERS, 1, &[0; 4]), b.others, Flood::Other),
            (frame(0x7, 0, 0, &[0; 8]), b.others, Flood::Other),
            (frame(CONTINUATION, END_HEADERS, 1, &[]), b.others, Flood::Other),
            (frame(0x0B, 0, 0, &[]), b.others, Flood::Other),
            (frame(0xFF, 0xFF, 0x7FFF_FFFF, b"grease"), b.others, Flood::Other),
        ]
    }

    #[test]
    fn every_kind_of_frame_has_its_burst_and_its_rate() {
        let budgets = Budgets::default();
        for (bytes, budget, flood) in floods(&budgets) {
            let mut watch = begun(&budgets);
            assert_eq!(repeat(&mut watch, &bytes, 0), (budget.burst, Err(flood)), "{bytes:?}");
            assert_eq!(watch.feed(b"", u64::MAX), Err(flood), "a verdict stays");

            let mut watch = begun(&budgets);
            for _ in 0..budget.burst {
                watch.feed(&bytes, SECOND).unwrap();
            }
            let refilled = budget.burst.min(budget.per_second / 10);
            let late = SECOND + SECOND / 10;
            assert_eq!(repeat(&mut watch, &bytes, late), (refilled, Err(flood)), "{bytes:?}");
        }
    }

    #[test]
    fn a_flood_below_its_rate_goes_on_for_ever() {
        let budgets = Budgets::default();
        for (bytes, budget, _) in floods(&budgets).into_iter().filter(|(_, budget, _)| budget.per_second > 0)
        {
            let mut watch = begun(&budgets);
            let every = SECOND / u64::from(budget.per_second) + 1;
            for count in 0..u64::from(budget.burst) * 3 {
                watch.feed(&bytes, count * every).unwrap();
            }
        }
    }

    #[test]
    fn content_and_requests_have_no_budget() {
        let mut watch = begun(&Budgets::default());
        let mut request = frame(HEADERS, END_HEADERS, 1, b"\x82\x86\x84");
        for stream in (1..200_001u32).step_by(2) {
            request[5..9].copy_from_slice(&stream.to_be_bytes());
            watch.feed(&request, 0).unwrap();
            watch.feed(&frame(DATA, 0, stream, b"12345"), 0).unwrap();
            watch.feed(&frame(DATA, PADDED, stream, &[2, 1, 2, 3, 4, 5, 0, 0]), 0).unwrap();
            watch.feed(&frame(DATA, END_STREAM, stream, b""), 0).unwrap();
            watch.feed(&frame(DATA, END_STREAM | PADDED, stream, &[1, 0]), 0).unwrap();
        }
    }

    /// Opens `streams` streams and resets those of them for which `resets` holds, all at one moment.
    fn cancel(streams: u32, resets: fn(u32) -> bool) -> Result<(), Flood> {
        let mut watch = begun(&Budgets::default());
        for count in 0..streams {
            let stream = 2 * count + 1;
            watch.feed(&frame(HEADERS, END_HEADERS, stream, b"\x82"), 0)?;
            if resets(count) {
                watch.feed(&frame(RST_STREAM, 0, stream, &[0; 4]), 0)?;
            }
        }
        Ok(())
    }

    #[test]
    fn cancelling_every_other_request_is_fine_and_every_one_is_not() {
        assert_eq!(cancel(100_000, |count| count % 2 == 0), Ok(()));
        assert_eq!(cancel(499, |_| true), Ok(()));
        assert_eq!(cancel(1_100, |_| true), Err(Flood::RapidReset));
    }

    #[test]
    fn trailers_and_old_streams_give_nothing_back() {
        let mut watch = begun(&Budgets::default());
        let (open, reset) = (frame(HEADERS, END_HEADERS, 3, b""), frame(RST_STREAM, 0, 3, &[0; 4]));
        let even = frame(HEADERS, END_HEADERS, 4, b"");
        watch.feed(&open, 0).unwrap();
        let round = [&open[..], &even, &reset].concat();
        assert_eq!(repeat(&mut watch, &round, 0), (500, Err(Flood::RapidReset)));
    }

    #[test]
    fn a_header_block_is_limited_in_frames_and_in_bytes() {
        let budgets = Budgets::default();
        let start = frame(HEADERS, 0, 1, &[]);
        let piece = frame(CONTINUATION, 0, 1, &[]);
        let mut watch = begun(&budgets);
        watch.feed(&start, 0).unwrap();
        assert_eq!(repeat(&mut watch, &piece, 0), (budgets.continuations, Err(Flood::Continuation)));

        let large = vec![0; budgets.frame_size as usize];
        let mut watch = begun(&budgets);
        watch.feed(&frame(HEADERS, 0, 1, &large), 0).unwrap();
        for _ in 0..3 {
            watch.feed(&frame(CONTINUATION, 0, 1, &large), 0).unwrap();
        }
        assert_eq!(watch.feed(&frame(CONTINUATION, END_HEADERS, 1, b"x"), 0), Err(Flood::HeaderBlock));

        // The next block starts from nothing.
        let mut watch = begun(&budgets);
        for stream in (1..101).step_by(2) {
            watch.feed(&frame(HEADERS, 0, stream, &large), 0).unwrap();
            watch.feed(&frame(CONTINUATION, END_HEADERS, stream, &large), 0).unwrap();
        }
    }

    #[test]
    fn a_frame_over_the_size_is_refused_with_its_header() {
        let budgets = Budgets::default();
        let most = budgets.frame_size;
        for (length, expected) in
            [(most, Ok(())), (most + 1, Err(Flood::FrameTooLarge)), (0xFF_FFFF, Err(Flood::FrameTooLarge))]
        {
            for kind in [DATA, HEADERS, SETTINGS, 0xFF] {
                let mut header = frame(kind, 0, 1, &[]);
                header[..3].copy_from_slice(&length.to_be_bytes()[1..]);
                // SETTINGS this long use up the rest of their budget.
                let budgets = Budgets { settings: Budget { burst: 1000, per_second: 0 }, ..budgets };
                assert_eq!(begun(&budgets).feed(&header, 0), expected, "{kind} {length}");
            }
        }
    }

    #[test]
    fn long_settings_count_as_many() {
        let mut watch = begun(&Budgets::default());
        let long = frame(SETTINGS, 0, 0, &[0; 96 * 9]);
        assert_eq!(repeat(&mut watch, &long, 0), (10, Err(Flood::Settings)));
    }

    #[test]
    fn every_wrong_byte_of_the_preface_is_refused_where_it_stands() {
        for at in 0..PREFACE.len() {
            for byte in (0..=255).filter(|&byte| byte != PREFACE[at]) {
                let mut watch = Watch::new(&Budgets::default());
                watch.feed(&PREFACE[..at], 0).unwrap();
                assert_eq!(watch.feed(&[byte], 0), Err(Flood::BadPreface), "{at} {byte}");
            }
        }
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing() {
        let mut watch = begun(&Budgets::default());
        let ping = frame(PING, 0, 0, &[0; 8]);
        for _ in 0..1000 {
            watch.feed(&ping, SECOND).unwrap();
        }
        watch.feed(b"", 0).unwrap();
        assert_eq!(watch.feed(&ping, SECOND), Err(Flood::Ping));
    }

    #[test]
    fn codes_are_distinct() {
        let codes: std::collections::BTreeSet<&str> = Flood::ALL.iter().map(|flood| flood.code()).collect();
        assert_eq!(codes.len(), Flood::ALL.len());
        assert!(codes.iter().all(|code| code.starts_with("h2-")));
    }

    /// Small budgets, so that short streams reach them.
    fn small() -> Budgets {
        let budget = Budget { burst: 3, per_second: 1 };
        Budgets {
            resets: budget,
            pings: budget,
            settings: budget,
            priorities: budget,
            window_updates: budget,
            empty_data: budget,
            tiny_data: budget,
            others: budget,
            continuations: 2,
            header_block: 40,
            frame_size: 64,
        }
    }

    fn any_frame() -> impl Strategy<Value = Vec<u8>> {
        let kind = prop_oneof![8 => 0..=0x10u8, 1 => any::<u8>()];
        let payload = proptest::collection::vec(0..12u8, 0..30);
        (kind, any::<u8>(), 0..20u32, payload)
            .prop_map(|(kind, flags, stream, payload)| frame(kind, flags, stream, &payload))
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 4000,
            rng_seed: RngSeed::Fixed(1),
            failure_persistence: None,
            ..Default::default()
        })]

        #[test]
        fn pieces_do_not_matter(
            frames in proptest::collection::vec(any_frame(), 0..40),
            noise in proptest::collection::vec(any::<u8>(), 0..40),
            sizes in proptest::collection::vec(1..40usize, 1..10),
        ) {
            let bytes = [&PREFACE[..], &frames.concat(), &noise].concat();
            let mut at_once = Watch::new(&small());
            let expected = at_once.feed(&bytes, 0);
            let mut pieces = Watch::new(&small());
            let (mut rest, mut verdict) = (&bytes[..], Ok(()));
            for &size in sizes.iter().cycle() {
                let (piece, after) = rest.split_at(size.min(rest.len()));
                verdict = pieces.feed(piece, 0);
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(verdict, expected);
            if expected.is_ok() {
                prop_assert_eq!(format!("{at_once:?}"), format!("{pieces:?}"));
            }
        }
    }
}
