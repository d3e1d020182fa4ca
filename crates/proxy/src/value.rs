//! Numbers as people write them: "1.5s", "10MiB", "100/s", "10.0.0.0/8".
//!
//! Promise: each parses from the one form the documentation shows, prints back in it, and says in its
//! schema (`format`) which form that is, so that a wrong text is a problem with a place.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A length of time: a number and a unit, "250ms", "1.5s", "2m", "1h", "7d".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(pub std::time::Duration);

/// An amount of memory: "512B", "16KiB", "10MiB", "1GiB"; decimal "10kB", "10MB"; a bare number is bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

/// How fast bytes move: a size and "/s", "64KiB/s", "10MiB/s".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteRate(pub u64);

/// A network: "10.0.0.0/8", "2001:db8::/32", or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network(pub ipnet::IpNet);

/// How many in which time: "100/s", "600/m", "10/30s". At least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    /// How many.
    pub count: u32,
    /// In which time.
    pub period: Period,
}

/// A stretch of the calendar in UTC, "hour", "day", "week" (from Monday) or "month"; or a length of time, "90m".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Span {
    /// From a full hour to the next.
    Hour,
    /// From midnight to midnight.
    Day,
    /// From Monday to Monday.
    Week,
    /// From the first of a month to the next.
    Month,
    /// Stretches of this length, counted from the Unix epoch.
    Of(Period),
}

/// A share of a whole, 0 to 1, written as a number.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Ratio(pub f64);

const PERIOD_UNITS: &[(&str, f64)] =
    &[("ms", 1e-3), ("us", 1e-6), ("s", 1.0), ("m", 60.0), ("h", 3600.0), ("d", 86_400.0)];

/// Ten years, in seconds: a moment so far away can still be told.
const LONGEST: f64 = 3650.0 * 86_400.0;

const SIZE_UNITS: &[(&str, f64)] = &[
    ("KiB", 1024.0),
    ("MiB", 1_048_576.0),
    ("GiB", 1_073_741_824.0),
    ("kB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
    ("B", 1.0),
    ("", 1.0),
];

fn number_and_unit(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let scale = units.iter().find(|(name, _)| *name == unit)?.1;
    let number: f64 = number.parse().ok()?;
    Some(number * scale)
}

impl FromStr for Period {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        number_and_unit(text, PERIOD_UNITS)
            .filter(|seconds| *seconds <= LONGEST)
            .and_then(|seconds| std::time::Duration::try_from_secs_f64(seconds).ok())
            .map(Period)
            .ok_or_else(|| format!("`{text}` is not a length of time; write a number and a unit: \"250ms\", \"1.5s\", \"2m\", \"1h\""))
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_micros();
        let units: &[(&str, u128)] = &[
            ("d", 86_400_000_000),
            ("h", 3_600_000_000),
            ("m", 60_000_000),
            ("s", 1_000_000),
            ("ms", 1_000),
        ];
        match units.iter().find(|(_, size)| micros >= *size && micros.is_multiple_of(*size)) {
            Some((unit, size)) => write!(f, "{}{unit}", micros / size),
            None if micros == 0 => f.write_str("0s"),
            None => write!(f, "{micros}us"),
        }
    }
}

impl FromStr for Rate {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').and_then(|(count, unit)| {
            let count = count.parse().ok().filter(|count| *count > 0)?;
            // "s" is one second.
            let unit = unit.to_owned();
            let period: Period = match unit.starts_with(|c: char| c.is_ascii_digit()) {
                true => unit.parse().ok()?,
                false => format!("1{unit}").parse().ok()?,
            };
            (!period.0.is_zero()).then_some(Rate { count, period })
        });
        parts.ok_or_else(|| {
            format!("`{text}` is not a rate; write how many in which time: \"100/s\", \"600/m\", \"10/30s\"")
        })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let period = self.period.to_string();
        let unit =
            period.strip_prefix('1').filter(|unit| unit.starts_with(|c: char| c.is_ascii_alphabetic()));
        write!(f, "{}/{}", self.count, unit.unwrap_or(&period))
    }
}

const SPANS: &[(&str, Span)] =
    &[("hour", Span::Hour), ("day", Span::Day), ("week", Span::Week), ("month", Span::Month)];

impl FromStr for Span {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((_, span)) = SPANS.iter().find(|(word, _)| *word == text) {
            return Ok(*span);
        }
        let period = text.parse::<Period>().ok().filter(|period| period.0.as_secs() > 0);
        period.map(Span::Of).ok_or_else(|| {
            format!("`{text}` is no period; write \"hour\", \"day\", \"week\", \"month\" or a length of time: \"90m\"")
        })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Span::Of(period) => period.fmt(f),
            span => f.write_str(SPANS.iter().find(|(_, one)| one == span).map_or("", |(word, _)| word)),
        }
    }
}

impl FromStr for ByteSize {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        number_and_unit(text, SIZE_UNITS)
            .filter(|bytes| *bytes < 9e15)
            .map(|bytes| ByteSize(bytes as u64))
            .ok_or_else(|| format!("`{text}` is not a size; write a number and a unit: \"512B\", \"16KiB\", \"10MiB\", \"1GiB\""))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units: &[(&str, u64)] = &[("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
        match units.iter().find(|(_, size)| self.0 >= *size && self.0.is_multiple_of(*size)) {
            Some((unit, size)) => write!(f, "{}{unit}", self.0 / size),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl FromStr for ByteRate {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let size = text.strip_suffix("/s").and_then(|size| size.parse::<ByteSize>().ok());
        size.filter(|size| size.0 > 0).map(|size| ByteRate(size.0)).ok_or_else(|| {
            format!("`{text}` is not a rate of bytes; write a size and \"/s\": \"64KiB/s\", \"10MiB/s\"")
        })
    }
}

impl fmt::Display for ByteRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", ByteSize(self.0))
    }
}

impl FromStr for Network {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let net = match text.parse::<IpAddr>() {
            Ok(address) => Ok(ipnet::IpNet::from(address)),
            Err(_) => text.parse::<ipnet::IpNet>().map(|net| net.trunc()),
        };
        net.map(Network)
            .map_err(|_| format!("`{text}` is not an address or a network; write \"192.0.2.7\", \"10.0.0.0/8\" or \"2001:db8::/32\""))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Network {
    /// Whether the address is in it; an IPv4-mapped IPv6 address counts as the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

macro_rules! text_values {
    ($($name:ident $format:literal $example:literal,)*) => {
        /// The parser behind each schema `format` this module defines: gives the problem's sentence.
        pub fn check_format(format: &str, text: &str) -> Result<(), String> {
            match format {
                $($format => text.parse::<$name>().map(|_| ()),)*
                _ => Ok(()),
            }
        }

        $(
            impl<'de> Deserialize<'de> for $name {
                fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                    let text = Cow::<'de, str>::deserialize(from)?;
                    text.parse().map_err(serde::de::Error::custom)
                }
            }

            impl Serialize for $name {
                fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                    to.collect_str(self)
                }
            }

            impl JsonSchema for $name {
                fn schema_name() -> Cow<'static, str> {
                    stringify!($name).into()
                }
                fn inline_schema() -> bool {
                    true
                }
                fn json_schema(_: &mut SchemaGenerator) -> Schema {
                    json_schema!({ "type": "string", "format": $format, "examples": [$example] })
                }
            }
        )*
    };
}

text_values! {
    Period "period" "1.5s",
    ByteSize "byte-size" "10MiB",
    Network "network" "10.0.0.0/8",
    Rate "rate" "100/s",
    ByteRate "byte-rate" "10MiB/s",
    Span "span" "day",
}

impl<'de> Deserialize<'de> for Ratio {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let number = f64::deserialize(from)?;
        if !(0.0..=1.0).contains(&number) {
            return Err(serde::de::Error::custom(format!("{number} is not between 0 and 1")));
        }
        Ok(Ratio(number))
    }
}

impl Serialize for Ratio {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(self.0)
    }
}

impl JsonSchema for Ratio {
    fn schema_name() -> Cow<'static, str> {
        "Ratio".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "number", "minimum": 0.0, "maximum": 1.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn values_parse_and_print_back() {
        for (text, millis) in [("250ms", 250), ("1.5s", 1500), ("2m", 120_000), ("0s", 0), ("1h", 3_600_000)]
        {
            assert_eq!(text.parse::<Period>().unwrap().0, Duration::from_millis(millis), "{text}");
        }
        assert_eq!("1.5s".parse::<Period>().unwrap().to_string(), "1500ms");
        for (text, bytes) in [("16KiB", 16384), ("1.5MiB", 1_572_864), ("10kB", 10_000), ("7", 7), ("7B", 7)]
        {
            assert_eq!(text.parse::<ByteSize>().unwrap().0, bytes, "{text}");
        }
        assert_eq!("10.1.2.3/8".parse::<Network>().unwrap().to_string(), "10.0.0.0/8");
        assert!("10.0.0.0/8".parse::<Network>().unwrap().contains("::ffff:10.1.1.1".parse().unwrap()));
    }

    #[test]
    fn wrong_values_are_refused() {
        for text in ["", "5", "s", "-1s", "1x", "1..5s", "99999999999999999999999d"] {
            assert!(text.parse::<Period>().is_err(), "{text:?}");
        }
        for text in ["", "KiB", "-1", "1ZiB", "1e99"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text:?}");
        }
        for text in ["", "10.0.0", "10.0.0.0/33", "example.org"] {
            assert!(text.parse::<Network>().is_err(), "{text:?}");
        }
    }
}
