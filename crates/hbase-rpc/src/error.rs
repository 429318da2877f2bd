//! What can be wrong with bytes that came over the wire.

/// The result of decoding.
pub type Result<T> = std::result::Result<T, Error>;

/// Bytes or values that are not what the protocol says; the message names what is wrong.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// A frame or a part of it that does not hold together.
    #[error("bad frame: {reason}")]
    BadFrame {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A frame above the bound of this side.
    #[error("a frame of {length} bytes; at most {length_max} are accepted")]
    FrameTooLong {
        /// Its length in bytes.
        length: u64,
        /// The bound in bytes.
        length_max: u64,
    },
    /// Bytes that are not the message that was expected.
    #[error("not a {message}: {source}")]
    BadMessage {
        /// The message's name.
        message: &'static str,
        /// The decoder's answer.
        source: prost::DecodeError,
    },
    /// A message without a field that its use requires, or with a wrong value in it.
    #[error("bad {field}: {reason}")]
    BadField {
        /// The message and the field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Cells beside a message that do not hold together, or are not as many as it says.
    #[error("bad cell block: {reason}")]
    BadCellBlock {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A cell or a name within a message that is not one.
    #[error(transparent)]
    Model(#[from] basalt_model::Error),
    /// A codec of cells that is not known here.
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
