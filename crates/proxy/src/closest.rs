//! "Did you mean": the known word closest to one that is not known.
//!
//! Promise: silent rather than silly. A suggestion is at most one slip away for every three letters, and
//! words of two letters or fewer are only ever corrected in case.

/// Longer words are nobody's typing slip, and the comparison is quadratic.
const LONGEST: usize = 64;

/// The word of `among` that `word` is most likely a slip of; the first one when several are equally close.
///
/// The distance is Damerau-Levenshtein's (insert, delete, replace or swap one character: 1 each), regardless
/// of case and of hyphens for underscores. At most a third of the longer word's characters may differ, and
/// never more than three.
pub fn closest<'a>(word: &str, among: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = folded(word)?;
    let mut best: Option<(usize, &str)> = None;
    for candidate in among {
        let Some(other) = folded(candidate) else { continue };
        let (count, others) = (word.chars().count(), other.chars().count());
        let allowed = (count.max(others) / 3).min(3);
        if count.abs_diff(others) > allowed {
            continue;
        }
        let distance = strsim::damerau_levenshtein(&word, &other);
        if distance <= allowed && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

fn folded(word: &str) -> Option<String> {
    // Four bytes for each character at most.
    (word.len() <= 4 * LONGEST).then(|| word.to_lowercase().replace(['-', ' '], "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suggestion<'a>(word: &str, among: &[&'a str]) -> Option<&'a str> {
        closest(word, among.iter().copied())
    }

    #[test]
    fn one_slip_is_recognised_whatever_its_kind() {
        let keys = ["forward", "respond", "redirect", "timeouts"];
        for (slip, meant) in [
            ("foward", "forward"),
            ("forwward", "forward"),
            ("forwarf", "forward"),
            ("fowrard", "forward"),
            ("Forward", "forward"),
            ("timeout", "timeouts"),
        ] {
            assert_eq!(suggestion(slip, &keys), Some(meant), "{slip}");
        }
    }

    #[test]
    fn nothing_is_suggested_for_another_word() {
        let keys = ["forward", "id", "cors"];
        for word in ["", "x", "ie", "jwt", "backward", "corsair", &"f".repeat(10_000)] {
            assert_eq!(suggestion(word, &keys), None, "{word}");
        }
    }

    #[test]
    fn the_closest_wins_and_then_the_first() {
        assert_eq!(suggestion("headr", &["leader", "header"]), Some("header"));
        assert_eq!(suggestion("rate", &["gate", "date"]), Some("gate"));
        assert_eq!(suggestion("ID", &["if", "id"]), Some("id"));
    }
}
