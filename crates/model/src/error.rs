//! Errors for invalid values that came from outside.

/// An invalid value. The message names the value and says what is valid.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// Bytes that are not a serialized cell.
    #[error("not a cell: {reason}")]
    BadCell {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A name of a table or a namespace that HBase would reject.
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
    /// A value that a setting of a table or a family cannot have.
    #[error("bad value {value:?} of {setting}: {allowed}")]
    BadSetting {
        /// The setting.
        setting: &'static str,
        /// Its value.
        value: String,
        /// The values that it may have.
        allowed: &'static str,
    },
}
