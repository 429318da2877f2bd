//! Jute: big-endian integers, one-byte booleans, and buffers, strings and vectors with an `i32`
//! length, where −1 means null.
//!
//! A decoded [`Bytes`] is a view of its frame, and keeps that frame in memory.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Values that can be written to the wire.
pub trait Encode: Sync {
    /// Appends the wire form of `self` to `output`.
    fn encode(&self, output: &mut BytesMut);
}

/// Values that can be read from the wire.
pub trait Decode: Sized {
    /// Reads the wire form of one `Self` from the front of `input`, and removes it.
    ///
    /// # Errors
    /// `input` is too short, or its bytes are not a valid `Self`.
    fn decode(input: &mut Decoder) -> Result<Self, DecodeError>;

    /// Reads one `Self` from the front of `message`.
    ///
    /// # Errors
    /// See [`Decode::decode`].
    fn from_message(message: Bytes) -> Result<Self, DecodeError> {
        Self::decode(&mut Decoder::new(message))
    }
}

/// The unread rest of a message.
#[derive(Clone, Debug)]
pub struct Decoder(Bytes);

/// A message is not valid for its kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct DecodeError {
    /// The innermost record and field, as `Record.field`.
    pub place: &'static str,
    /// What is wrong there.
    pub problem: Problem,
}

/// What is wrong with a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The message ends inside a field.
    #[error("{needed_bytes} bytes are needed, but {left_bytes} are left")]
    Truncated {
        /// How many bytes the field needs.
        needed_bytes: usize,
        /// How many bytes are left in the message.
        left_bytes: usize,
    },
    /// A length is neither −1 (null) nor one that the rest of the message can hold.
    #[error("length {length} is not between -1 and the {left_bytes} bytes that are left")]
    Length {
        /// The length as sent.
        length: i32,
        /// How many bytes are left in the message.
        left_bytes: usize,
    },
    /// A string is null where one is required.
    #[error("null, where a string is needed")]
    NullString,
    /// A string is not UTF-8.
    #[error("not UTF-8")]
    NotUtf8,
    /// No request has this operation code.
    #[error("{code} is not the operation code of a request")]
    UnknownOp {
        /// The code as sent.
        code: i32,
    },
    /// A multi has an operation that is not allowed in it.
    #[error("{code} is not an operation of a multi")]
    UnknownMultiOp {
        /// The code as sent.
        code: i32,
    },
}

/// The length that stands for null.
const NULL: i32 = -1;

/// Defines a record: a struct whose fields are encoded in order, with nothing between them.
macro_rules! record {
    (
        $(#[$attribute:meta])*
        $name:ident {
            $( $(#[$field_attribute:meta])* $field:ident: $kind:ty, )*
        }
    ) => {
        $(#[$attribute])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            $( $(#[$field_attribute])* pub $field: $kind, )*
        }

        impl $crate::proto::Encode for $name {
            fn encode(&self, output: &mut bytes::BytesMut) {
                $( $crate::proto::Encode::encode(&self.$field, output); )*
            }
        }

        impl $crate::proto::Decode for $name {
            fn decode(
                input: &mut $crate::proto::Decoder,
            ) -> Result<Self, $crate::proto::DecodeError> {
                Ok(Self {
                    $( $field: <$kind as $crate::proto::Decode>::decode(input).map_err(|error| {
                        error.within(concat!(stringify!($name), ".", stringify!($field)))
                    })?, )*
                })
            }
        }
    };
}
pub(crate) use record;

// === impl Decoder ===

impl Decoder {
    /// A decoder of `message`.
    pub fn new(message: Bytes) -> Self {
        Self(message)
    }

    /// Whether everything has been read.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes that have not been read.
    pub fn rest(self) -> Bytes {
        self.0
    }

    fn take(&mut self, needed_bytes: usize) -> Result<Bytes, DecodeError> {
        let left_bytes = self.0.len();
        if needed_bytes > left_bytes {
            return Err(DecodeError::of(Problem::Truncated { needed_bytes, left_bytes }));
        }
        Ok(self.0.split_to(needed_bytes))
    }

    /// A length that the rest of the message can hold, as every item takes at least one byte.
    /// `None` for null.
    fn length(&mut self) -> Result<Option<usize>, DecodeError> {
        let length = i32::decode(self)?;
        if length == NULL {
            return Ok(None);
        }
        let left_bytes = self.0.len();
        match usize::try_from(length) {
            Ok(fitting) if fitting <= left_bytes => Ok(Some(fitting)),
            _ => Err(DecodeError::of(Problem::Length { length, left_bytes })),
        }
    }
}

// === impl DecodeError ===

/// The place of an error that no record has claimed yet.
const NO_PLACE: &str = "message";

impl DecodeError {
    pub(crate) fn of(problem: Problem) -> Self {
        Self { place: NO_PLACE, problem }
    }

    /// The same error at `place`, unless something inside `place` has claimed it.
    pub(crate) fn within(self, place: &'static str) -> Self {
        if self.place == NO_PLACE { Self { place, ..self } } else { self }
    }
}

// === impl Encode and Decode for the primitives ===

impl Encode for () {
    fn encode(&self, _: &mut BytesMut) {}
}

impl Decode for () {
    fn decode(_: &mut Decoder) -> Result<Self, DecodeError> {
        Ok(())
    }
}

impl Encode for i32 {
    fn encode(&self, output: &mut BytesMut) {
        output.put_i32(*self);
    }
}

impl Decode for i32 {
    fn decode(input: &mut Decoder) -> Result<Self, DecodeError> {
        Ok(input.take(size_of::<Self>())?.get_i32())
    }
}

impl Encode for i64 {
    fn encode(&self, output: &mut BytesMut) {
        output.put_i64(*self);
    }
}

impl Decode for i64 {
    fn decode(input: &mut Decoder) -> Result<Self, DecodeError> {
        Ok(input.take(size_of::<Self>())?.get_i64())
    }
}

impl Encode for bool {
    fn encode(&self, output: &mut BytesMut) {
        output.put_u8(u8::from(*self));
    }
}

impl Decode for bool {
    fn decode(input: &mut Decoder) -> Result<Self, DecodeError> {
        Ok(input.take(1)?.get_u8() != 0)
    }
}

impl Encode for [u8] {
    fn encode(&self, output: &mut BytesMut) {
        encode_length(self.len(), output);
        output.put_slice(self);
    }
}

impl Encode for Option<Bytes> {
    fn encode(&self, output: &mut BytesMut) {
        match self {
            Some(bytes) => bytes.as_ref().encode(output),
            None => output.put_i32(NULL),
        }
    }
}

impl Decode for Option<Bytes> {
    fn decode(input: &mut Decoder) -> Result<Self, DecodeError> {
        match input.length()? {
            Some(length) => Ok(Some(input.take(length)?)),
            None => Ok(None),
        }
    }
}

/// A buffer for which null and empty mean the same.
impl Encode for Bytes {
    fn encode(&self, output: &mut BytesMut) {
        self.as_ref().encode(output);
    }
}

impl Decode for Bytes {
    fn decode(input: &mut Decoder) -> Result<Self, DecodeError> {
        Ok(Option::<Self>::decode(input)?.unwrap_or_default())
    }
}

impl Encode for String {
    fn encode(&self, output: &mut BytesMut) {
        self.as_bytes().encode(output);
    }
}

impl Decode for String {
    fn decode(input: &mut Decoder) -> Result<Self, DecodeError> {
        let bytes =
            Option::<Bytes>::decode(input)?.ok_or_else(|| DecodeError::of(Problem::NullString))?;
        match std::str::from_utf8(&bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(DecodeError::of(Problem::NotUtf8)),
        }
    }
}

impl<T: Encode> Encode for Vec<T> {
    fn encode(&self, output: &mut BytesMut) {
        encode_length(self.len(), output);
        for item in self {
            item.encode(output);
        }
    }
}

/// A null vector is read as an empty one.
impl<T: Decode> Decode for Vec<T> {
    fn decode(input: &mut Decoder) -> Result<Self, DecodeError> {
        let count = input.length()?.unwrap_or(0);
        // The vector grows as items are read, so a length that a sender announces costs no memory.
        let mut items = Self::new();
        for _ in 0..count {
            items.push(T::decode(input)?);
        }
        Ok(items)
    }
}

/// Jute cannot express a length above `i32::MAX`. No frame is that long.
fn encode_length(length: usize, output: &mut BytesMut) {
    output.put_i32(i32::try_from(length).unwrap_or(i32::MAX));
}
