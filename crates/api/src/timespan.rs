//! A length of time in the notation of manifests: `500ms`, `1.5s`, `10m`, `2h`, `90d`.
//!
//! Invariant: a whole number of milliseconds, at most [`Timespan::MS_MAX`].

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Error;

/// A length of time, in whole milliseconds.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Timespan(u64);

/// The valid units in milliseconds, largest first.
const UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// The pattern that the API server checks. [`Timespan::from_str`] accepts the same texts.
const PATTERN: &str = r"^[0-9]{1,10}(\.[0-9]{1,3})?(ms|s|m|h|d)$";

// === impl Timespan ===

impl Timespan {
    /// The maximum: `i32::MAX` seconds, which HBase treats as "forever".
    pub const MS_MAX: u64 = i32::MAX as u64 * 1_000;

    /// A timespan of `ms` milliseconds, at most [`Timespan::MS_MAX`].
    pub const fn from_ms(ms: u64) -> Self {
        Self(if ms > Self::MS_MAX { Self::MS_MAX } else { ms })
    }

    /// The number of milliseconds.
    pub const fn as_ms(self) -> u64 {
        self.0
    }
}

impl From<Timespan> for Duration {
    fn from(timespan: Timespan) -> Self {
        Self::from_millis(timespan.0)
    }
}

impl From<Duration> for Timespan {
    fn from(duration: Duration) -> Self {
        Self::from_ms(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for Timespan {
    /// The shortest form with exactly the same value.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = UNITS.into_iter().find(|(_, ms)| self.0 >= *ms && self.0.is_multiple_of(*ms));
        match whole {
            Some(("ms", _)) if self.0 > 1_000 => {
                let fraction = format!("{:03}", self.0 % 1_000);
                write!(formatter, "{}.{}s", self.0 / 1_000, fraction.trim_end_matches('0'))
            }
            Some((unit, ms)) => write!(formatter, "{}{unit}", self.0 / ms),
            None => formatter.write_str("0s"),
        }
    }
}

impl FromStr for Timespan {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        parse_ms(text)
            .filter(|ms| *ms <= Self::MS_MAX)
            .map(Self)
            .ok_or_else(|| Error::BadTimespan { text: text.to_owned() })
    }
}

impl Serialize for Timespan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timespan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Timespan;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a duration with its unit, such as 500ms, 1.5s or 10m")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Timespan, E> {
                text.parse().map_err(E::custom)
            }
        }
        // Not `deserialize_any`: a bare number has no unit, and the error says so.
        deserializer.deserialize_str(Visitor)
    }
}

impl JsonSchema for Timespan {
    fn schema_name() -> Cow<'static, str> {
        "Timespan".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": PATTERN, "maxLength": 16 })
    }
}

fn parse_ms(text: &str) -> Option<u64> {
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(unit_at);
    let (_, unit_ms) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |part: &str, length_max| {
        (1..=length_max).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit())
    };
    if !digits(whole, 10) || !digits(fraction, 3) {
        return None;
    }
    let thousandths: u64 = format!("{fraction:0<3}").parse().ok()?;
    let fraction_ms = thousandths.checked_mul(unit_ms)?;
    if !fraction_ms.is_multiple_of(1_000) {
        return None;
    }
    whole.parse::<u64>().ok()?.checked_mul(unit_ms)?.checked_add(fraction_ms / 1_000)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_read_with_their_units() {
        for (text, ms) in [
            ("500ms", 500),
            ("3s", 3_000),
            ("1.5s", 1_500),
            ("0.75s", 750),
            ("10m", 600_000),
            ("0.5m", 30_000),
            ("2h", 7_200_000),
            ("1d", 86_400_000),
            ("0s", 0),
        ] {
            assert_eq!(text.parse::<Timespan>().unwrap().as_ms(), ms, "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused_with_an_example() {
        for text in ["", "3", "s", "-1s", "1.s", ".5s", "1.2345s", "1.5ms", "3 s", "3S", "1h30m"] {
            let error = text.parse::<Timespan>().unwrap_err().to_string();
            assert!(error.contains("500ms"), "{text:?}: {error}");
        }
        assert!("9999999999d".parse::<Timespan>().is_err());
    }

    proptest! {
        #[test]
        fn every_time_is_read_as_it_was_written(ms in 0..=Timespan::MS_MAX) {
            let timespan = Timespan::from_ms(ms);
            prop_assert_eq!(timespan.to_string().parse::<Timespan>().unwrap(), timespan);
        }

        #[test]
        fn reading_never_panics(text in "[0-9.]{0,12}[a-z]{0,2}") {
            let _ = text.parse::<Timespan>();
        }
    }
}
