//! What can be wrong with a word that came from outside.

/// A value that is not what it should be; the message names it and says what would be right.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// Bytes that are not a serialized cell.
    #[error("not a cell: {reason}")]
    BadCell {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A name of a table or a namespace that HBase would not take.
    #[error("bad name {name:?}: {reason}")]
    BadName {
        /// The name, lossily decoded.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Text that is not `host,port,startcode`.
    #[error("bad server name {name:?}: it must have the form host,port,startcode")]
    BadServerName {
        /// The text.
        name: String,
    },
    /// Text that is not the MD5 of a region's name in lower-case hexadecimal.
    #[error("bad encoded region name {name:?}: it must be 32 hexadecimal digits")]
    BadEncodedRegionName {
        /// The text.
        name: String,
    },
    /// A setting of a table or a family with a value that it cannot have.
    #[error("bad value {value:?} of {setting}: {allowed}")]
    BadSetting {
        /// The setting.
        setting: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        allowed: &'static str,
    },
}
