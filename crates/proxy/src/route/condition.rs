//! One condition: tests of a header, query parameter or cookie.
//!
//! Promise: values are compared as bytes, so that no value, however odd, is skipped; a regex takes time
//! linear in the value.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

use regex::bytes::{Regex, RegexBuilder};
use schemars::JsonSchema;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde::{Deserialize as DeriveDeserialize, Serialize};

use super::{Complaint, keep};
use crate::problem::{At, Problems};

/// Memory one compiled regex may take. The crate's own default is 10 MiB, too much for a thousand routes.
const REGEX_SIZE: usize = 1 << 20;

/// A test of one value: a text it must equal, or a table of tests that must all hold.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Condition {
    /// The whole value.
    Exact(String),
    /// Tests that must all hold.
    Tests(Tests),
}

/// Tests that must all hold of the same value. When a name occurs several times, one of its values must
/// pass all of them.
#[derive(Clone, Debug, Default, PartialEq, DeriveDeserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tests {
    /// The whole value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exact: Option<String>,
    /// How it starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// How it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suffix: Option<String>,
    /// What it contains.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contains: Option<String>,
    /// A regex found anywhere in it; write ^ and $ to match it whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regex: Option<String>,
    /// Whether there is one at all: true or, alone in its table, false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub present: Option<bool>,
    /// It is a number, this or more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<Number>,
    /// It is a number, this or less.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<Number>,
    /// Turns the condition around: it holds when no value passes the tests, also when there is none.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub not: bool,
}

/// A number of a range.
#[derive(Clone, Copy, Debug, PartialEq, DeriveDeserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Number {
    /// Whole; compared exactly.
    Integer(i64),
    /// Any other.
    Float(f64),
}

impl Number {
    /// The number a text is: decimal, also with exponent; no spaces, no infinities.
    fn parse(text: &[u8]) -> Option<Number> {
        let text = std::str::from_utf8(text).ok()?;
        let float = || text.parse().ok().filter(|float: &f64| float.is_finite()).map(Number::Float);
        text.parse().ok().map(Number::Integer).or_else(float)
    }

    fn float(self) -> f64 {
        match self {
            Number::Integer(number) => number as f64,
            Number::Float(number) => number,
        }
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Number) -> Option<Ordering> {
        match (self, other) {
            (Number::Integer(a), Number::Integer(b)) => Some(a.cmp(b)),
            (a, b) => a.float().partial_cmp(&b.float()),
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Number::Integer(number) => number.fmt(f),
            Number::Float(number) => number.fmt(f),
        }
    }
}

impl<'de> Deserialize<'de> for Condition {
    // By hand: the derive for untagged enums says only "did not match any variant".
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Condition;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, or a table of tests")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Condition, E> {
                Ok(Condition::Exact(text.to_owned()))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Condition, A::Error> {
                Tests::deserialize(de::value::MapAccessDeserializer::new(map)).map(Condition::Tests)
            }
        }
        from.deserialize_any(Either)
    }
}

impl fmt::Display for Tests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts = [
            ("exact", &self.exact),
            ("prefix", &self.prefix),
            ("suffix", &self.suffix),
            ("contains", &self.contains),
            ("regex", &self.regex),
        ];
        let texts = texts.iter().filter_map(|(name, text)| Some(format!("{name} {:?}", text.as_ref()?)));
        let numbers = [("min", self.min), ("max", self.max)];
        let numbers = numbers.iter().filter_map(|(name, number)| Some(format!("{name} {}", (*number)?)));
        let present = self.present.map(|present| if present { "present" } else { "absent" }.to_owned());
        let all: Vec<_> = texts.chain(numbers).chain(present).collect();
        let not = if self.not { "not " } else { "" };
        write!(f, "{not}{}", all.join(", "))
    }
}

/// A condition, compiled.
#[derive(Debug)]
pub(super) struct Check {
    /// As written, with a bare text as `exact`, and without `not`: `holds_if` says which way round it is.
    tests: Tests,
    regex: Option<Regex>,
    holds_if: Passing,
}

/// Which outcome of the tests makes a condition hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Passing {
    Some,
    None,
}

impl Check {
    /// Compiles a condition.
    pub(super) fn compile(condition: &Condition, at: &At, problems: &mut Problems) -> Option<Check> {
        let mut tests = match condition {
            Condition::Exact(text) => Tests { exact: Some(text.clone()), ..Tests::default() },
            Condition::Tests(tests) => tests.clone(),
        };
        keep(sensible(&tests), at, problems)?;
        let regex = match &tests.regex {
            Some(text) => Some(keep(regex(text, Case::Sensitive), &at.key("regex"), problems)?),
            None => None,
        };
        // "absent" is: none passes no tests at all.
        let absent = tests.present == Some(false);
        let holds_if = if tests.not != absent { Passing::None } else { Passing::Some };
        (tests.not, tests.present) = (false, None);
        Some(Check { tests, regex, holds_if })
    }

    /// Whether it holds for these values of its name.
    pub(super) fn holds<'v>(&self, mut values: impl Iterator<Item = Cow<'v, [u8]>>) -> bool {
        values.any(|value| self.passes(&value)) == (self.holds_if == Passing::Some)
    }

    fn passes(&self, value: &[u8]) -> bool {
        let Tests { exact, prefix, suffix, contains, .. } = &self.tests;
        exact.as_ref().is_none_or(|text| value == text.as_bytes())
            && prefix.as_ref().is_none_or(|text| value.starts_with(text.as_bytes()))
            && suffix.as_ref().is_none_or(|text| value.ends_with(text.as_bytes()))
            && contains.as_ref().is_none_or(|text| memchr::memmem::find(value, text.as_bytes()).is_some())
            && self.in_range(value)
            && self.regex.as_ref().is_none_or(|regex| regex.is_match(value))
    }

    fn in_range(&self, value: &[u8]) -> bool {
        if self.tests.min.is_none() && self.tests.max.is_none() {
            return true;
        }
        let Some(number) = Number::parse(value) else { return false };
        self.tests.min.is_none_or(|min| number >= min) && self.tests.max.is_none_or(|max| number <= max)
    }

    /// Whether no single value (nor its absence) fulfils both conditions, as far as can be told.
    pub(super) fn excludes(&self, other: &Check) -> bool {
        match (self.holds_if, other.holds_if) {
            (Passing::Some, Passing::Some) => self.tests_exclude(other) || other.tests_exclude(self),
            (Passing::Some, Passing::None) => other.denies(self),
            (Passing::None, Passing::Some) => self.denies(other),
            (Passing::None, Passing::None) => false,
        }
    }

    fn tests_exclude(&self, other: &Check) -> bool {
        let apart = |a: &Option<String>, b: &Option<String>, holds: fn(&str, &str) -> bool| match (a, b) {
            (Some(a), Some(b)) => !holds(a, b) && !holds(b, a),
            _ => false,
        };
        let above =
            |min: Option<Number>, max: Option<Number>| matches!((min, max), (Some(a), Some(b)) if a > b);
        self.tests.exact.as_ref().is_some_and(|text| !other.passes(text.as_bytes()))
            || apart(&self.tests.prefix, &other.tests.prefix, |a, b| a.starts_with(b))
            || apart(&self.tests.suffix, &other.tests.suffix, |a, b| a.ends_with(b))
            || above(self.tests.min, other.tests.max)
    }

    /// Whether what passes `other` passes the tests of this one, which wants none to.
    fn denies(&self, other: &Check) -> bool {
        self.tests == Tests::default()
            || self.tests == other.tests
            || other.tests.exact.as_ref().is_some_and(|text| self.passes(text.as_bytes()))
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.holds_if, self.tests == Tests::default()) {
            (Passing::Some, true) => f.write_str("present"),
            (Passing::None, true) => f.write_str("absent"),
            (Passing::Some, false) => self.tests.fmt(f),
            (Passing::None, false) => write!(f, "not {}", self.tests),
        }
    }
}

fn sensible(tests: &Tests) -> Result<(), Complaint> {
    let bare = Tests { not: false, ..tests.clone() };
    if bare == Tests::default() {
        return Err(Complaint::new(
            "this condition tests nothing",
            "write a text, or one of exact, prefix, suffix, contains, regex, present, min, max",
        ));
    }
    if tests.present == Some(false) && bare != (Tests { present: Some(false), ..Tests::default() }) {
        return Err(Complaint::new(
            "a value that is absent passes no other test",
            "leave `present = false` alone in its table",
        ));
    }
    if [tests.min, tests.max].iter().flatten().any(|number| !number.float().is_finite()) {
        return Err(Complaint::new("a range has finite ends", "leave out `min` or `max` for an open range"));
    }
    if let (Some(min), Some(max)) = (tests.min, tests.max)
        && min > max
    {
        return Err(Complaint::new(
            format!("no number is at least {min} and at most {max}"),
            "swap min and max",
        ));
    }
    Ok(())
}

/// Whether upper and lower case differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Case {
    Sensitive,
    Ignored,
}

/// Compiles a regex.
pub(super) fn regex(text: &str, case: Case) -> Result<Regex, Complaint> {
    RegexBuilder::new(text).case_insensitive(case == Case::Ignored).size_limit(REGEX_SIZE).build().map_err(
        |error| match error {
            regex::Error::CompiledTooBig(_) => Complaint::new(
                format!("this regex takes more than {} KiB when compiled", REGEX_SIZE >> 10),
                "use smaller repetitions than {n,m}, or several routes",
            ),
            error => {
                // The last line of the crate's message is the sentence; the lines before draw the text.
                let text = error.to_string();
                let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
                Complaint::new(
                    format!("this regex is not valid: {reason}"),
                    "the syntax is that of the Rust regex crate: no look-around, no backreferences; \\. is a dot",
                )
            }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(condition: &str) -> Result<Check, Problems> {
        let condition: Condition = serde_json::from_str(condition).unwrap();
        let mut problems = Problems::new();
        Check::compile(&condition, &At::root(), &mut problems).ok_or(problems)
    }

    fn holds(condition: &str, values: &[&str]) -> bool {
        check(condition).unwrap().holds(values.iter().map(|value| Cow::Borrowed(value.as_bytes())))
    }

    #[test]
    fn each_test_holds_and_fails() {
        for (condition, good, bad) in [
            (r#""a""#, "a", "ab"),
            (r#"{"exact":"a"}"#, "a", "A"),
            (r#"{"prefix":"ab"}"#, "abc", "cab"),
            (r#"{"suffix":"ab"}"#, "cab", "abc"),
            (r#"{"contains":"ab"}"#, "cabc", "acb"),
            (r#"{"regex":"b.d"}"#, "abcde", "bd"),
            (r#"{"regex":"^b.d$"}"#, "bcd", "abcde"),
            (r#"{"min":5}"#, "5", "4"),
            (r#"{"min":5}"#, "5.5", "five"),
            (r#"{"max":-1}"#, "-2", "0"),
            (r#"{"min":1,"max":2.5}"#, "2.5", "2.6"),
            (r#"{"min":9007199254740993}"#, "9007199254740993", "9007199254740992"),
            (r#"{"min":0}"#, "1e3", "inf"),
            (r#"{"max":0}"#, "0", "nan"),
            (r#"{"prefix":"a","suffix":"z"}"#, "a-z", "a-y"),
        ] {
            assert!(holds(condition, &[good]), "{condition} {good}");
            assert!(!holds(condition, &[bad]), "{condition} {bad}");
            assert!(!holds(condition, &[]), "{condition} of nothing");
        }
    }

    #[test]
    fn one_of_several_values_is_enough_but_it_must_pass_every_test() {
        assert!(holds(r#""b""#, &["a", "b"]));
        assert!(!holds(r#"{"prefix":"a","suffix":"z"}"#, &["a", "z"]));
    }

    #[test]
    fn presence_and_not_turn_around() {
        assert!(holds(r#"{"present":true}"#, &[""]) && !holds(r#"{"present":true}"#, &[]));
        assert!(holds(r#"{"present":false}"#, &[]) && !holds(r#"{"present":false}"#, &["a"]));
        assert!(holds(r#"{"present":false,"not":true}"#, &["a"]));
        assert!(holds(r#"{"exact":"a","not":true}"#, &[]) && holds(r#"{"exact":"a","not":true}"#, &["b"]));
        assert!(!holds(r#"{"exact":"a","not":true}"#, &["b", "a"]));
    }

    #[test]
    fn bytes_that_are_not_utf8_are_compared_too() {
        let value = || std::iter::once(Cow::Borrowed(&b"a\xff"[..]));
        assert!(check(r#"{"prefix":"a"}"#).unwrap().holds(value()));
        assert!(check(r#"{"regex":"^a"}"#).unwrap().holds(value()));
        assert!(!check(r#""a""#).unwrap().holds(value()));
    }

    #[test]
    fn a_condition_without_sense_is_a_problem() {
        for condition in [
            "{}",
            r#"{"not":true}"#,
            r#"{"present":false,"exact":"a"}"#,
            r#"{"min":2,"max":1}"#,
            r#"{"regex":"("}"#,
            r#"{"regex":"(?=a)"}"#,
            r#"{"regex":"\\w{1000}{100}"}"#,
        ] {
            let problems = check(condition).unwrap_err();
            assert_eq!(problems.iter().filter(|problem| problem.hint.is_some()).count(), 1, "{condition}");
        }
        let problems = check(r#"{"regex":"a("}"#).unwrap_err();
        let message = &problems.iter().next().unwrap().message;
        assert_eq!(message, "this regex is not valid: unclosed group");
    }

    #[test]
    fn wrong_shapes_say_what_is_expected() {
        let error = serde_json::from_str::<Condition>("1").unwrap_err().to_string();
        assert!(error.contains("a text, or a table of tests"), "{error}");
        let error = serde_json::from_str::<Condition>(r#"{"prefx":"a"}"#).unwrap_err().to_string();
        assert!(error.contains("unknown field `prefx`"), "{error}");
    }

    #[test]
    fn conditions_exclude_each_other_when_no_value_fulfils_both() {
        for (a, b, excluded) in [
            (r#""a""#, r#""b""#, true),
            (r#""a""#, r#""a""#, false),
            (r#""a""#, r#"{"prefix":"b"}"#, true),
            (r#""a""#, r#"{"regex":"^[0-9]+$"}"#, true),
            (r#""5""#, r#"{"min":1,"max":9}"#, false),
            (r#"{"prefix":"a"}"#, r#"{"prefix":"b"}"#, true),
            (r#"{"prefix":"a"}"#, r#"{"prefix":"ab"}"#, false),
            (r#"{"suffix":"a"}"#, r#"{"suffix":"b"}"#, true),
            (r#"{"contains":"a"}"#, r#"{"contains":"b"}"#, false),
            (r#"{"max":4}"#, r#"{"min":5}"#, true),
            (r#"{"max":5}"#, r#"{"min":5}"#, false),
            (r#"{"present":true}"#, r#"{"present":false}"#, true),
            (r#""a""#, r#"{"present":false}"#, true),
            (r#""a""#, r#"{"exact":"a","not":true}"#, true),
            (r#""a""#, r#"{"exact":"b","not":true}"#, false),
            (r#"{"regex":"a"}"#, r#"{"regex":"a","not":true}"#, true),
            (r#"{"present":false}"#, r#"{"exact":"b","not":true}"#, false),
        ] {
            let (one, other) = (check(a).unwrap(), check(b).unwrap());
            assert_eq!((one.excludes(&other), other.excludes(&one)), (excluded, excluded), "{a} {b}");
        }
    }

    #[test]
    fn a_condition_prints_as_written() {
        for (condition, text) in [
            (r#""a""#, r#"exact "a""#),
            (r#"{"prefix":"a","max":5}"#, r#"prefix "a", max 5"#),
            (r#"{"present":false}"#, "absent"),
            (r#"{"regex":"a","not":true}"#, r#"not regex "a""#),
        ] {
            assert_eq!(check(condition).unwrap().to_string(), text);
        }
    }
}
