//! Moments as text: RFC 3339 in UTC with milliseconds, and the common log format's.
//!
//! Promise: no time zone, no allocation, and the calendar is computed once for each second.

use std::time::{SystemTime, UNIX_EPOCH};

const MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

/// A day of the proleptic Gregorian calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Civil {
    year: u64,
    month: u64,
    day: u64,
}

/// The day `days` days after 1970-01-01. Method: Howard Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms" (civil_from_days), for days since the epoch only.
fn civil(days: u64) -> Civil {
    let shifted = days + 719_468; // Days since 0000-03-01: leap days end years that begin in March.
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    Civil { year: year_of_era + era * 400 + u64::from(month <= 2), month, day }
}

/// The days from this one, counted since 1970-01-01, to the first of the next month.
pub fn days_left_of_month(day: u64) -> u64 {
    let month = civil(day).month;
    // The loop ends: no month has more days.
    (1..=31).find(|days| civil(day + days).month != month).unwrap_or(31)
}

fn push_padded(mut value: u64, width: usize, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + width, b'0');
    for digit in out[start..].iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// How a moment is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// `2026-01-31T23:59:59.042Z` (RFC 3339).
    Rfc3339,
    /// `31/Jan/2026:23:59:59 +0000` (the common log format).
    CommonLog,
}

/// Writes moments in one style, and keeps what it wrote for the second they fall into.
#[derive(Clone, Debug)]
pub struct Timestamp {
    style: Style,
    second: Option<u64>,
    text: Vec<u8>,
}

impl Timestamp {
    /// A writer of this style.
    pub fn new(style: Style) -> Timestamp {
        Timestamp { style, second: None, text: Vec::with_capacity(32) }
    }

    /// Appends the moment. One before 1970 is written as the first of 1970, one after the year 9999 as its
    /// last second.
    pub fn write(&mut self, moment: SystemTime, out: &mut Vec<u8>) {
        const LAST: u64 = 253_402_300_799;
        let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
        let second = since.as_secs().min(LAST);
        if self.second != Some(second) {
            self.text.clear();
            render(self.style, second, &mut self.text);
            self.second = Some(second);
        }
        out.extend_from_slice(&self.text);
        if self.style == Style::Rfc3339 {
            out.push(b'.');
            push_padded(u64::from(since.subsec_millis()), 3, out);
            out.push(b'Z');
        }
    }
}

fn render(style: Style, second: u64, out: &mut Vec<u8>) {
    let day = civil(second / 86_400);
    let (hour, minute) = (second / 3_600 % 24, second / 60 % 60);
    match style {
        Style::Rfc3339 => {
            push_padded(day.year, 4, out);
            out.push(b'-');
            push_padded(day.month, 2, out);
            out.push(b'-');
            push_padded(day.day, 2, out);
            out.push(b'T');
        }
        Style::CommonLog => {
            push_padded(day.day, 2, out);
            out.push(b'/');
            out.extend_from_slice(MONTHS[day.month as usize - 1]);
            out.push(b'/');
            push_padded(day.year, 4, out);
            out.push(b':');
        }
    }
    push_padded(hour, 2, out);
    out.push(b':');
    push_padded(minute, 2, out);
    out.push(b':');
    push_padded(second % 60, 2, out);
    if style == Style::CommonLog {
        out.extend_from_slice(b" +0000");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn text(style: Style, moment: SystemTime) -> String {
        let mut out = Vec::new();
        Timestamp::new(style).write(moment, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn known_moments_are_written_exactly() {
        for (seconds, millis, rfc, clf) in [
            (0, 0, "1970-01-01T00:00:00.000Z", "01/Jan/1970:00:00:00 +0000"),
            (951_782_400, 7, "2000-02-29T00:00:00.007Z", "29/Feb/2000:00:00:00 +0000"),
            (971_211_336, 0, "2000-10-10T20:55:36.000Z", "10/Oct/2000:20:55:36 +0000"),
            (1_709_251_199, 999, "2024-02-29T23:59:59.999Z", "29/Feb/2024:23:59:59 +0000"),
            (1_767_225_599, 42, "2025-12-31T23:59:59.042Z", "31/Dec/2025:23:59:59 +0000"),
            (4_107_542_400, 0, "2100-03-01T00:00:00.000Z", "01/Mar/2100:00:00:00 +0000"),
        ] {
            let moment = UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_millis(millis);
            assert_eq!(text(Style::Rfc3339, moment), rfc);
            assert_eq!(text(Style::CommonLog, moment), clf);
        }
    }

    #[test]
    fn moments_outside_the_range_are_clamped() {
        let before = UNIX_EPOCH - Duration::from_secs(5);
        assert_eq!(text(Style::Rfc3339, before), "1970-01-01T00:00:00.000Z");
        let after = UNIX_EPOCH + Duration::from_secs(300_000_000_000);
        assert_eq!(text(Style::Rfc3339, after), "9999-12-31T23:59:59.000Z");
    }

    #[test]
    fn days_follow_each_other_for_eight_centuries() {
        let mut last = civil(0);
        for days in 1..292_194 {
            let next = civil(days);
            let divides = |by| last.year.is_multiple_of(by);
            let leap = divides(4) && (!divides(100) || divides(400));
            let length = match last.month {
                2 => 28 + u64::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            let expected = match (last.day < length, last.month < 12) {
                (true, _) => Civil { day: last.day + 1, ..last },
                (false, true) => Civil { month: last.month + 1, day: 1, ..last },
                (false, false) => Civil { year: last.year + 1, month: 1, day: 1 },
            };
            assert_eq!(next, expected);
            last = next;
        }
    }

    #[test]
    fn the_cached_second_gives_what_a_fresh_writer_gives() {
        let mut cached = Timestamp::new(Style::Rfc3339);
        for millis in [0, 999, 1_000, 1_001, 500, 86_400_000, 86_399_999] {
            let moment = UNIX_EPOCH + Duration::from_millis(millis);
            let mut out = Vec::new();
            cached.write(moment, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), text(Style::Rfc3339, moment));
        }
    }
}
