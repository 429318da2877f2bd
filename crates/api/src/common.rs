//! Types that several manifests share.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// What happens to the data when its resource is deleted.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum DeletionPolicy {
    /// It stays.
    #[default]
    Retain,
    /// It is deleted too.
    Delete,
}

/// The volume of one member.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberStorage {
    /// Size of the volume. Used on Kubernetes only.
    #[serde(default = "member_storage_size")]
    pub size: Quantity,
    /// Storage class of the volume. Defaults to the default class of the Kubernetes cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_class: Option<String>,
}

/// The resources of a container, in the notation of Kubernetes.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// The resources that the container is guaranteed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, Quantity>,
    /// The resources that the container may not exceed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, Quantity>,
}

/// An amount, such as `500m`, `2` or `1Gi`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Quantity(pub String);

/// A pod template, stored as it was written.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct PodTemplate(pub serde_json::Map<String, serde_json::Value>);

/// A placeholder for a field that does not work yet. Any value is rejected.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct NotYet(pub serde_json::Value);

/// The suffixes that Kubernetes knows, and their factors.
const QUANTITY_SUFFIXES: [(&str, f64); 14] = [
    ("", 1.0),
    ("m", 1e-3),
    ("k", 1e3),
    ("M", 1e6),
    ("G", 1e9),
    ("T", 1e12),
    ("P", 1e15),
    ("E", 1e18),
    ("Ki", 1024.0),
    ("Mi", 1_048_576.0),
    ("Gi", 1_073_741_824.0),
    ("Ti", 1_099_511_627_776.0),
    ("Pi", 1_125_899_906_842_624.0),
    ("Ei", 1_152_921_504_606_846_976.0),
];

// === impl MemberStorage ===

impl Default for MemberStorage {
    fn default() -> Self {
        Self { size: member_storage_size(), storage_class: None }
    }
}

fn member_storage_size() -> Quantity {
    Quantity("1Gi".to_owned())
}

// === impl Quantity ===

impl Quantity {
    /// The numeric value: `1Gi` and `1024Mi` are equal. `None` if `text` is not an amount.
    pub fn amount(text: &str) -> Option<f64> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let suffix = &text[digits.len()..];
        let is_number =
            !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let number: f64 = digits.parse().ok().filter(|_| is_number)?;
        let (_, unit) = QUANTITY_SUFFIXES.iter().find(|(known, _)| *known == suffix)?;
        Some(number * unit)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Quantity;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an amount such as 500m, 2 or 1Gi")
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Quantity, E> {
                Ok(Quantity(number.to_string()))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Quantity, E> {
                match Quantity::amount(text) {
                    Some(_) => Ok(Quantity(text.to_owned())),
                    None => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
                }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for Quantity {
    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "x-kubernetes-int-or-string": true })
    }
}

// === impl PodTemplate ===

impl JsonSchema for PodTemplate {
    fn schema_name() -> Cow<'static, str> {
        "PodTemplate".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
    }
}

// === impl NotYet ===

impl JsonSchema for NotYet {
    fn schema_name() -> Cow<'static, str> {
        "NotYet".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_those_of_kubernetes() {
        for good in ["1Gi", "500m", "2", "1.5G"] {
            assert!(serde_yaml_ng::from_str::<Quantity>(good).is_ok(), "{good}");
        }
        assert_eq!(Quantity::amount("1Gi"), Quantity::amount("1024Mi"));
        assert!(Quantity::amount("1G") < Quantity::amount("1Gi"));
        for bad in ["1GB", "Gi", "''", "1 Gi", "lots", "1.2.3"] {
            let error = serde_yaml_ng::from_str::<Quantity>(bad).unwrap_err().to_string();
            assert!(error.contains("1Gi"), "{bad}: {error}");
        }
    }
}
