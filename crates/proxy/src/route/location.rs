//! nginx's `location`, and the index of its prefixes.
//!
//! Promise: the five forms mean what nginx's documentation says (ngx_http_core_module, `location`); which
//! one wins is said in the module above. Finding the prefixes of a path costs one binary search and one
//! step for each of them.

use super::Complaint;
use super::condition::Case;
use super::order::Candidate;
use super::path::{Form, PathRegex, absolute};

/// Whether a prefix that is the longest wins over regexes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// `^~`: over regexes too.
    Regexes,
    /// Over nothing: a regex that matches wins.
    Nothing,
}

/// Parses one of the five forms.
pub(super) fn parse(text: &str) -> Result<Form, Complaint> {
    let (modifier, rest) = match text.split_once(char::is_whitespace) {
        Some((modifier, rest)) => (modifier, rest.trim()),
        None => ("", text),
    };
    match modifier {
        "" => Ok(Form::LocationPrefix(absolute(rest, 0)?.into(), Over::Nothing)),
        "=" => Ok(Form::Literal(absolute(rest, 0)?.into())),
        "^~" => Ok(Form::LocationPrefix(absolute(rest, 0)?.into(), Over::Regexes)),
        "~" => Ok(Form::LocationRegex(PathRegex::compile(rest, Case::Sensitive)?)),
        "~*" => Ok(Form::LocationRegex(PathRegex::compile(rest, Case::Ignored)?)),
        _ => Err(Complaint::new(
            format!("`{modifier}` is not a modifier of a location"),
            "write \"/x\", \"= /x\", \"^~ /x\", \"~ regex\" or \"~* regex\"",
        )),
    }
}

/// The prefixes of one host, by text.
#[derive(Debug, Default)]
pub(super) struct Prefixes(Vec<Prefix>);

#[derive(Debug)]
struct Prefix {
    text: Box<str>,
    /// The longest other prefix that this one starts with.
    within: Option<u32>,
    leaf: Vec<Candidate>,
}

impl Prefixes {
    /// Adds a route; [`Prefixes::finish`] must follow before looking up.
    pub(super) fn add(&mut self, text: &str, candidate: Candidate) {
        self.0.push(Prefix { text: text.into(), within: None, leaf: vec![candidate] });
    }

    /// Sorts, brings equal texts together and links each to the one it starts with. `order` says how
    /// candidates with the same text stand to each other.
    pub(super) fn finish<K: Ord>(&mut self, order: impl Fn(&Candidate) -> K) {
        self.0.sort_by(|a, b| a.text.cmp(&b.text));
        self.0.dedup_by(|later, first| {
            let same = later.text == first.text;
            if same {
                first.leaf.append(&mut later.leaf);
            }
            same
        });
        // In sorted order the prefixes of a text stand before it, and those still open form a stack.
        let mut open: Vec<u32> = Vec::new();
        for index in 0..self.0.len() {
            while let Some(&top) = open.last()
                && !self.0[index].text.starts_with(&*self.0[top as usize].text)
            {
                open.pop();
            }
            let prefix = &mut self.0[index];
            prefix.within = open.last().copied();
            prefix.leaf.sort_by_key(&order);
            open.push(index as u32);
        }
    }

    /// The candidates of all prefixes of `path`, the longest first.
    pub(super) fn of<'a>(&'a self, path: &'a str) -> impl Iterator<Item = &'a [Candidate]> {
        // The longest prefix of the path is the last text up to it, or one that this text starts with.
        let after = self.0.partition_point(|prefix| *prefix.text <= *path);
        let mut next = after.checked_sub(1).map(|last| last as u32);
        std::iter::from_fn(move || {
            while let Some(prefix) = next.map(|index| &self.0[index as usize]) {
                next = prefix.within;
                if path.starts_with(&*prefix.text) {
                    return Some(&prefix.leaf[..]);
                }
            }
            None
        })
    }

    /// The candidates of each text.
    pub(super) fn leaves(&self) -> impl Iterator<Item = &[Candidate]> {
        self.0.iter().map(|prefix| &prefix.leaf[..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_five_forms_are_told_apart() {
        assert!(matches!(parse("= /x").unwrap(), Form::Literal(text) if &*text == "/x"));
        assert!(
            matches!(parse("^~  /x").unwrap(), Form::LocationPrefix(text, Over::Regexes) if &*text == "/x")
        );
        assert!(
            matches!(parse("/x%20y").unwrap(), Form::LocationPrefix(text, Over::Nothing) if &*text == "/x y")
        );
        let regex = |text: &str, path: &str| match parse(text).unwrap() {
            Form::LocationRegex(regex) => regex.matches(path),
            _ => panic!("{text} is a regex"),
        };
        assert!(regex("~ \\.php$", "/a.php") && !regex("~ \\.php$", "/a.PHP"));
        assert!(regex("~* \\.php$", "/a.PHP"));
        for wrong in ["", "x", "=/x", "== /x", "@named", "~ (", "~", "= x"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn all_prefixes_of_a_path_are_found_longest_first(
            texts in prop::collection::vec("/[ab/]{0,5}", 0..20),
            path in "/[abc/]{0,6}",
        ) {
            let mut prefixes = Prefixes::default();
            for (index, text) in texts.iter().enumerate() {
                prefixes.add(text, Candidate { rank: index as u32, route: index as u32 });
            }
            prefixes.finish(|candidate| candidate.rank);
            let found: Vec<usize> = prefixes.of(&path).flatten().map(|candidate| candidate.route as usize).collect();
            let mut expected: Vec<usize> =
                (0..texts.len()).filter(|&index| path.starts_with(&texts[index])).collect();
            expected.sort_by_key(|&index| (std::cmp::Reverse(texts[index].len()), index));
            prop_assert_eq!(found, expected);
        }
    }
}
