//! nginx's `location`, and the index of its prefixes.
//!
//! Promise: the five forms mean what nginx's documentation says (ngx_http_core_module, `location`); which
//! one wins is said in the module above. Finding the prefixes of a path costs a hash lookup and a binary
//! search for each of its folders, as far down as there are prefixes.

use super::Complaint;
use super::condition::Case;
use super::hash::ConfigMap;
use super::order::Candidate;
use super::path::{Form, PathRegex, absolute};
use super::segment::starts_with;

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
        "~" => Ok(Form::LocationRegex(PathRegex::compile(rest, Case::Sensitive)?.into())),
        "~*" => Ok(Form::LocationRegex(PathRegex::compile(rest, Case::Ignored)?.into())),
        _ => Err(Complaint::new(
            format!("`{modifier}` is not a modifier of a location"),
            "write \"/x\", \"= /x\", \"^~ /x\", \"~ regex\" or \"~* regex\"",
        )),
    }
}

/// The prefixes of one host.
#[derive(Debug, Default)]
pub(super) struct Prefixes {
    /// By what stands up to the last slash; in each, sorted by what follows.
    folders: ConfigMap<Box<str>, Vec<Prefix>>,
    /// The slashes of the deepest folder: nobody can make us look at more slashes of a path.
    deepest: usize,
}

#[derive(Debug)]
struct Prefix {
    /// What follows the last slash.
    text: Box<str>,
    /// The longest other prefix of the folder that this one starts with.
    within: Option<u32>,
    leaf: Vec<Candidate>,
}

impl Prefixes {
    /// Adds a route; [`Prefixes::finish`] must follow before looking up.
    pub(super) fn add(&mut self, text: &str, candidate: Candidate) {
        let (folder, rest) = text.split_at(text.rfind('/').map_or(0, |slash| slash + 1));
        self.deepest = self.deepest.max(folder.matches('/').count());
        let prefix = Prefix { text: rest.into(), within: None, leaf: vec![candidate] };
        self.folders.entry(folder.into()).or_default().push(prefix);
    }

    /// Sorts, brings equal texts together and links each to the one it starts with. `order` says how
    /// candidates with the same text stand to each other.
    pub(super) fn finish<K: Ord>(&mut self, order: impl Fn(&Candidate) -> K) {
        for folder in self.folders.values_mut() {
            folder.sort_by(|a, b| a.text.cmp(&b.text));
            folder.dedup_by(|later, first| {
                let same = later.text == first.text;
                if same {
                    first.leaf.append(&mut later.leaf);
                }
                same
            });
            folder.iter_mut().for_each(|prefix| prefix.leaf.sort_by_key(&order));
            link(folder);
        }
    }

    /// The candidates of all prefixes of `path`, the longest first.
    pub(super) fn of<'a>(&'a self, path: &'a str) -> impl Iterator<Item = &'a [Candidate]> {
        let end = memchr::memchr_iter(b'/', path.as_bytes()).take(self.deepest).last();
        let slashes = memchr::memrchr_iter(b'/', &path.as_bytes()[..end.map_or(0, |end| end + 1)]);
        slashes.flat_map(move |slash| {
            let (folder, rest) = path.split_at(slash + 1);
            in_folder(self.folders.get(folder).map_or(&[], Vec::as_slice), rest)
        })
    }

    /// The candidates of each text.
    pub(super) fn leaves(&self) -> impl Iterator<Item = &[Candidate]> {
        self.folders.values().flatten().map(|prefix| &prefix.leaf[..])
    }
}

/// In sorted order the prefixes of a text stand before it, and those still open form a stack.
fn link(folder: &mut [Prefix]) {
    let mut open: Vec<u32> = Vec::new();
    for index in 0..folder.len() {
        while let Some(&top) = open.last()
            && !folder[index].text.starts_with(&*folder[top as usize].text)
        {
            open.pop();
        }
        folder[index].within = open.last().copied();
        open.push(index as u32);
    }
}

/// The candidates of all prefixes of `rest` in one folder, the longest first.
fn in_folder<'a>(folder: &'a [Prefix], rest: &'a str) -> impl Iterator<Item = &'a [Candidate]> {
    // The longest prefix is the last text up to the path, or one that this text starts with.
    let after = folder.partition_point(|prefix| prefix.text.is_empty() || *prefix.text <= *rest);
    let mut next = after.checked_sub(1).map(|last| last as u32);
    std::iter::from_fn(move || {
        while let Some(prefix) = next.map(|index| &folder[index as usize]) {
            next = prefix.within;
            if starts_with(rest, &prefix.text) {
                return Some(&prefix.leaf[..]);
            }
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::order::Beyond;
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
                prefixes.add(text, Candidate { rank: index as u32, route: index as u32, beyond: Beyond::More });
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
