//! Comparators of values, for conditions and filters.

use std::cmp::Ordering;

use basalt_hbase_rpc::{Exception, pb};
use bytes::Bytes;
use prost::Message as _;

/// A comparator, with the operand that values are compared with.
#[derive(Clone, Debug)]
pub(crate) enum Comparator {
    /// Compares all bytes.
    Binary(Bytes),
    /// Compares as many bytes as the prefix has.
    BinaryPrefix(Bytes),
    /// Compares with a big-endian `i64`.
    Long(i64),
    /// Checks whether there is a value.
    Null,
    /// Checks whether the lower-cased value contains a text.
    Substring(String),
}

/// Decodes the comparator of a message.
///
/// # Errors
/// It cannot be decoded, or it is not supported yet.
pub(crate) fn comparator(comparator: &pb::Comparator) -> Result<Comparator, Exception> {
    let bytes = comparator.serialized_comparator.clone().unwrap_or_default();
    let bad = |error: prost::DecodeError| {
        Exception::bad_request(format!("{} cannot be decoded: {error}", comparator.name))
    };
    let value = |comparable: pb::ByteArrayComparable| comparable.value.unwrap_or_default();
    let name = comparator.name.rsplit('.').next().unwrap_or_default();
    Ok(match name {
        "BinaryComparator" => {
            let message = pb::BinaryComparator::decode(bytes).map_err(bad)?;
            Comparator::Binary(value(message.comparable))
        }
        "BinaryPrefixComparator" => {
            let message = pb::BinaryPrefixComparator::decode(bytes).map_err(bad)?;
            Comparator::BinaryPrefix(value(message.comparable))
        }
        "LongComparator" => {
            let message = pb::LongComparator::decode(bytes).map_err(bad)?;
            let number = value(message.comparable);
            let number: [u8; 8] = number[..].try_into().map_err(|_| {
                Exception::bad_request(format!("a long has 8 bytes, not {}", number.len()))
            })?;
            Comparator::Long(i64::from_be_bytes(number))
        }
        "NullComparator" => Comparator::Null,
        "SubstringComparator" => {
            let message = pb::SubstringComparator::decode(bytes).map_err(bad)?;
            Comparator::Substring(message.substr.to_lowercase())
        }
        other => {
            let message =
                format!("comparator {other} is not supported yet; see docs/compatibility.md");
            return Err(Exception::bad_request(message));
        }
    })
}

// === impl Comparator ===

impl Comparator {
    /// Whether the comparison of `value` with the operand satisfies `operator`.
    pub(crate) fn compares(&self, operator: pb::CompareType, value: &[u8]) -> bool {
        let order = self.order_of(value);
        match operator {
            pb::CompareType::Less => order == Ordering::Less,
            pb::CompareType::LessOrEqual => order != Ordering::Greater,
            pb::CompareType::Equal => order == Ordering::Equal,
            pb::CompareType::NotEqual => order != Ordering::Equal,
            pb::CompareType::GreaterOrEqual => order != Ordering::Less,
            pb::CompareType::Greater => order == Ordering::Greater,
            pb::CompareType::NoOp => true,
        }
    }

    /// Whether a condition holds for a column with this value, or with none. As in HBase, a
    /// comparison with an empty operand holds for a missing or an empty value, unless the operator
    /// is "not equal".
    pub(crate) fn holds(&self, operator: pb::CompareType, value: Option<&[u8]>) -> bool {
        let unequal = operator == pb::CompareType::NotEqual;
        match value {
            None => self.is_nothing() && !unequal,
            Some(value) if self.is_nothing() => value.is_empty() != unequal,
            // The given value is the left operand: "expected LESS than present".
            Some(value) => self.compares(reversed(operator), value),
        }
    }

    fn is_nothing(&self) -> bool {
        match self {
            Self::Null => true,
            Self::Binary(bytes) | Self::BinaryPrefix(bytes) => bytes.is_empty(),
            Self::Long(_) | Self::Substring(_) => false,
        }
    }

    /// How `value` compares with the operand.
    fn order_of(&self, value: &[u8]) -> Ordering {
        match self {
            Self::Binary(bytes) => value.cmp(bytes),
            Self::BinaryPrefix(prefix) => {
                value.get(..prefix.len()).unwrap_or(value).cmp(&prefix[..])
            }
            Self::Long(number) => match <[u8; 8]>::try_from(value) {
                Ok(value) => i64::from_be_bytes(value).cmp(number),
                Err(_) => Ordering::Less,
            },
            // A value that exists is not null.
            Self::Null => Ordering::Greater,
            Self::Substring(text) => {
                let holds = String::from_utf8_lossy(value).to_lowercase().contains(text);
                if holds { Ordering::Equal } else { Ordering::Greater }
            }
        }
    }
}

fn reversed(operator: pb::CompareType) -> pb::CompareType {
    match operator {
        pb::CompareType::Less => pb::CompareType::Greater,
        pb::CompareType::LessOrEqual => pb::CompareType::GreaterOrEqual,
        pb::CompareType::GreaterOrEqual => pb::CompareType::LessOrEqual,
        pb::CompareType::Greater => pb::CompareType::Less,
        same => same,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_on_nothing_holds_for_a_missing_value() {
        let nothing = Comparator::Binary(Bytes::new());
        assert!(nothing.holds(pb::CompareType::Equal, None));
        assert!(!nothing.holds(pb::CompareType::NotEqual, None));
        assert!(nothing.holds(pb::CompareType::NotEqual, Some(b"x")));
        let something = Comparator::Binary(Bytes::from_static(b"5"));
        assert!(!something.holds(pb::CompareType::Equal, None));
        assert!(!something.holds(pb::CompareType::NotEqual, None));
    }

    #[test]
    fn the_given_value_stands_to_the_left() {
        let five = Comparator::Binary(Bytes::from_static(b"5"));
        assert!(five.holds(pb::CompareType::Equal, Some(b"5")));
        assert!(five.holds(pb::CompareType::Less, Some(b"7")), "5 is less than 7");
        assert!(!five.holds(pb::CompareType::Less, Some(b"3")));
        assert!(five.compares(pb::CompareType::Less, b"3"), "of a filter: 3 is less than 5");
    }
}
