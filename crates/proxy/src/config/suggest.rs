//! "Did you mean": the known name nearest to the one written.

/// The candidate that the writer probably meant, if one is near enough.
pub(crate) fn nearest<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// Longer texts are values, not names: comparing them costs and finds nothing.
    const LONGEST: usize = 64;
    if written.len() > LONGEST {
        return None;
    }
    let spell = |text: &str| text.to_lowercase().replace(['-', ' '], "_");
    let wanted = spell(written);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&wanted, &spell(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.chars().count() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The names in backticks, with commas between.
pub(crate) fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_meant_when_it_is_near() {
        let names = ["address", "protocol", "limits", "to"];
        assert_eq!(nearest("adress", names), Some("address"));
        assert_eq!(nearest("Protocol", names), Some("protocol"));
        assert_eq!(nearest("limts", names), Some("limits"));
        assert_eq!(nearest("prefix", names), None);
        assert_eq!(nearest("ot", names), Some("to"));
        assert_eq!(nearest("rate-limit", ["rate_limit"]), Some("rate_limit"));
        assert_eq!(nearest(&"x".repeat(1_000_000), names), None);
    }
}
