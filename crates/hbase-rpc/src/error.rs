//! What can be wrong with bytes received over the wire.

/// The result of decoding.
pub type Result<T> = std::result::Result<T, Error>;

/// Bytes or values that violate the protocol. The message says what is wrong.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// A malformed frame, or a malformed part of one.
    #[error("bad frame: {reason}")]
    BadFrame {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A frame above this side's limit.
    #[error("a frame of {length} bytes; at most {length_max} are accepted")]
    FrameTooLong {
        /// The length in bytes.
        length: u64,
        /// The limit in bytes.
        length_max: u64,
    },
    /// Bytes that are not the expected message.
    #[error("not a {message}: {source}")]
    BadMessage {
        /// The message's name.
        message: &'static str,
        /// The decoder's error.
        source: prost::DecodeError,
    },
    /// A message in which a required field is missing or has an invalid value.
    #[error("bad {field}: {reason}")]
    BadField {
        /// The message and the field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Malformed cells beside a message, or fewer cells than the message says.
    #[error("bad cell block: {reason}")]
    BadCellBlock {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An invalid cell or name within a message.
    #[error(transparent)]
    Model(#[from] basalt_model::Error),
    /// An unknown cell codec.
    #[error("unknown cell codec {class_name:?}: use KeyValueCodec or KeyValueCodecWithTags")]
    UnknownCodec {
        /// Its Java class.
        class_name: String,
    },
}

// === impl Error ===

impl Error {
    pub(crate) fn bad_field(field: &'static str, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self::BadField { field, reason }
    }
}
