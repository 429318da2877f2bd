//! The settings of `spec.regionServers.config`: limits of memory and of the write-ahead log.
//!
//! A setting that HBase has with the same meaning and unit has HBase's name.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The limits of a region server.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RegionServerConfig {
    /// The memstores of a region are flushed at this size, in bytes. Default: 128 MiB.
    pub flush_bytes: u64,
    /// A region accepts no more edits at this size, in multiples of `flush_bytes`. Default: 4.
    pub block_multiplier: u64,
    /// The maximum size of the memstores of all regions together, in bytes. Above it, the largest
    /// are flushed. Default: 256 MiB.
    pub memstores_bytes_max: u64,
    /// A log file that has reached this length, in bytes, is followed by a new one. Default: 64
    /// MiB.
    pub wal_roll_bytes: u64,
    /// The maximum number of log files that are still needed. Above it, regions are flushed so that
    /// the oldest can be deleted. It limits how much a recovery must replay. Default: 8.
    pub wal_files_max: u64,
    /// The size of the block cache, in bytes. Default: 128 MiB.
    pub block_cache_bytes: u64,
    /// A family with at least this many store files is compacted. Default: 3.
    pub compaction_files_min: u64,
}

/// A setting that does not exist, or that has an invalid value.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{name}: {reason}")]
pub struct BadSetting {
    /// Its name.
    pub name: String,
    /// What is wrong, and what would be right.
    pub reason: String,
}

/// The settings: name, minimum, maximum.
const SETTINGS: [(&str, u64, u64); 7] = [
    ("hbase.hregion.memstore.flush.size", 1 << 20, 64 << 30),
    ("hbase.hregion.memstore.block.multiplier", 1, 1000),
    ("basalt.regionserver.memstores.bytes", 1 << 20, 1 << 40),
    ("basalt.regionserver.wal.roll.bytes", 1 << 20, 1 << 30),
    ("hbase.regionserver.maxlogs", 2, 1000),
    ("basalt.regionserver.block.cache.bytes", 0, 1 << 40),
    ("hbase.hstore.compaction.min", 2, 1000),
];

// === impl RegionServerConfig ===

impl Default for RegionServerConfig {
    fn default() -> Self {
        Self {
            flush_bytes: 128 << 20,
            block_multiplier: 4,
            memstores_bytes_max: 256 << 20,
            wal_roll_bytes: 64 << 20,
            wal_files_max: 8,
            block_cache_bytes: 128 << 20,
            compaction_files_min: 3,
        }
    }
}

impl RegionServerConfig {
    /// The limits in `settings`, with defaults for omitted ones.
    ///
    /// # Errors
    /// The first setting that is unknown or out of range.
    pub fn from_settings(settings: &BTreeMap<String, String>) -> Result<Self, BadSetting> {
        let mut config = Self::default();
        for (name, text) in settings {
            let bad = |reason| BadSetting { name: name.clone(), reason };
            let Some((_, least, most)) = SETTINGS.iter().find(|(known, ..)| known == name) else {
                let known: Vec<&str> = SETTINGS.iter().map(|(known, ..)| *known).collect();
                return Err(bad(format!("unknown; known settings are {}", known.join(", "))));
            };
            let value = text.trim().parse().ok().filter(|value| (least..=most).contains(&value));
            let value = value
                .ok_or_else(|| bad(format!("{text:?} is not a number from {least} to {most}")))?;
            *config.setting(name) = value;
        }
        Ok(config)
    }

    fn setting(&mut self, name: &str) -> &mut u64 {
        match name {
            "hbase.hregion.memstore.flush.size" => &mut self.flush_bytes,
            "hbase.hregion.memstore.block.multiplier" => &mut self.block_multiplier,
            "basalt.regionserver.memstores.bytes" => &mut self.memstores_bytes_max,
            "basalt.regionserver.wal.roll.bytes" => &mut self.wal_roll_bytes,
            "hbase.regionserver.maxlogs" => &mut self.wal_files_max,
            "basalt.regionserver.block.cache.bytes" => &mut self.block_cache_bytes,
            _ => &mut self.compaction_files_min,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str, value: &str) -> Result<RegionServerConfig, BadSetting> {
        RegionServerConfig::from_settings(&[(name.to_owned(), value.to_owned())].into())
    }

    #[test]
    fn each_setting_changes_its_own_limit() {
        let mut seen = Vec::new();
        for (name, least, _) in SETTINGS {
            let config = parse(name, &least.to_string()).unwrap();
            assert_ne!(config, RegionServerConfig::default(), "{name} changes nothing");
            assert!(!seen.contains(&config), "{name} changes what another one does");
            seen.push(config);
        }
    }

    #[test]
    fn a_wrong_setting_is_named_with_what_would_be_right() {
        let unknown = parse("hbase.hregion.flush", "1").unwrap_err().to_string();
        assert!(unknown.contains("hbase.hregion.memstore.flush.size"), "{unknown}");
        let wrong = parse("hbase.regionserver.maxlogs", "many").unwrap_err().to_string();
        assert!(wrong.contains("from 2 to 1000"), "{wrong}");
    }
}
