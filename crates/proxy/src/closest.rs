//! "Did you mean": the known word closest to one that is not known.
//!
//! Promise: silent rather than silly. A suggestion is at most one slip away for every three letters, and
//! words of two letters or fewer are only ever corrected in case.

/// Longer words are nobody's typing slip, and the comparison is quadratic.
const LONGEST: usize = 64;

/// The word of `among` that `word` is most likely a slip of; the first one when several are equally close.
///
/// The distance is Damerau-Levenshtein's, restricted to adjacent transpositions (insert, delete, replace or
/// swap one character: 1 each), regardless of ASCII case. At most a third of the longer word's characters
/// may differ, and never more than three.
pub fn closest<'a>(word: &str, among: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = letters(word)?;
    let mut best: Option<(usize, &str)> = None;
    for candidate in among {
        let Some(other) = letters(candidate) else { continue };
        let allowed = (word.len().max(other.len()) / 3).min(3);
        if word.len().abs_diff(other.len()) > allowed {
            continue;
        }
        let distance = distance(&word, &other);
        if distance <= allowed && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

fn letters(word: &str) -> Option<Vec<char>> {
    let letters: Vec<char> = word.chars().take(LONGEST + 1).map(|c| c.to_ascii_lowercase()).collect();
    (letters.len() <= LONGEST).then_some(letters)
}

/// Optimal string alignment distance, row by row; a swap looks back two rows.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = last;
        last = row;
    }
    last[b.len()]
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

    #[test]
    fn a_swap_counts_as_one_and_the_distance_is_symmetric() {
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        for (a, b, expected) in [("", "", 0), ("", "abc", 3), ("ab", "ba", 1), ("kitten", "sitting", 3)] {
            assert_eq!(distance(&chars(a), &chars(b)), expected, "{a} {b}");
            assert_eq!(distance(&chars(b), &chars(a)), expected, "{b} {a}");
        }
    }
}
