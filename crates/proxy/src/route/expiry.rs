//! Moments as people write them (RFC 3339).
//!
//! Promise: a text is a moment in full or it is refused: no missing zone, no 30th of February.

/// The Unix seconds of an RFC 3339 moment: "2027-01-31T00:00:00Z", "2027-01-31T01:00:00.5+01:00".
/// Fractions of a second are cut off; a leap second is the second after it. The error says what is wrong.
pub fn parse_time(text: &str) -> Result<u64, String> {
    moment(text).ok_or_else(|| {
        format!("`{text}` is not a moment; write date, time and zone: \"2027-01-31T00:00:00Z\"")
    })
}

fn moment(text: &str) -> Option<u64> {
    let (date, rest) = (text.get(..10)?, text.get(10..)?);
    let rest = rest.strip_prefix(['T', 't'])?;
    let (time, rest) = (rest.get(..8)?, rest.get(8..)?);
    let [year, month, day] = numbers(date, b'-', [4, 2, 2])?;
    let [hour, minute, second] = numbers(time, b':', [2, 2, 2])?;
    if !(1..=12).contains(&month) || !(1..=days_in(year, month)).contains(&day) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let local = days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    u64::try_from(local - offset(after_fraction(rest)?)?).ok()
}

/// Three numbers of exactly these widths with `separator` between them.
fn numbers(text: &str, separator: u8, widths: [usize; 3]) -> Option<[i64; 3]> {
    let mut parts = text.split(separator as char);
    let mut out = [0; 3];
    for (number, width) in out.iter_mut().zip(widths) {
        let part = parts.next()?;
        if part.len() != width || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(out)
}

fn after_fraction(text: &str) -> Option<&str> {
    let Some(fraction) = text.strip_prefix('.') else { return Some(text) };
    let rest = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
    (rest.len() < fraction.len()).then_some(rest)
}

/// Seconds east of UTC.
fn offset(zone: &str) -> Option<i64> {
    if zone == "Z" || zone == "z" {
        return Some(0);
    }
    let (sign, rest) = match zone.as_bytes().first()? {
        b'+' => (1, &zone[1..]),
        b'-' => (-1, &zone[1..]),
        _ => return None,
    };
    let [hour, minute, _] = numbers(&format!("{rest}:00"), b':', [2, 2, 2])?;
    (hour <= 23 && minute <= 59).then_some(sign * (hour * 3600 + minute * 60))
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Howard Hinnant's `days_from_civil`: the year starts in March, so that the leap day comes last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_unix_seconds() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:00:00Z", 951_825_600),
            ("2027-01-31T00:00:00Z", 1_801_353_600),
            ("2027-01-31T01:30:00+01:30", 1_801_353_600),
            ("2027-01-30t16:00:00.999-08:00", 1_801_353_600),
            ("2016-12-31T23:59:60Z", 1_483_228_800),
            ("9999-12-31T23:59:59Z", 253_402_300_799),
        ] {
            assert_eq!(parse_time(text), Ok(seconds), "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "2027-01-31",
            "2027-01-31T00:00:00",
            "2027-01-31 00:00:00Z",
            "2027-02-29T00:00:00Z",
            "1900-02-29T00:00:00Z",
            "2027-13-01T00:00:00Z",
            "2027-00-01T00:00:00Z",
            "2027-01-00T00:00:00Z",
            "2027-01-31T24:00:00Z",
            "2027-01-31T00:60:00Z",
            "2027-01-31T00:00:00.Z",
            "2027-01-31T00:00:00+1:00",
            "2027-01-31T00:00:00+0100",
            "2027-01-31T00:00:00Zx",
            "+027-01-31T00:00:00Z",
            "2027-01-3éT00:00:00Z",
            "1969-12-31T23:59:59Z",
        ] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }
}
