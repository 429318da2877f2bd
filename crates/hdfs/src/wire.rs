//! Messages preceded by their length, as everywhere in HDFS.
//!
//! Decoders accept any bytes: they never panic, and check a length before they rely on it.

use bytes::{Buf, Bytes, BytesMut};
use prost::Message;

use crate::error::Defect;

/// The maximum length of the varint of a length: 32 bits.
const VARINT_BYTES_MAX: usize = 5;

/// Appends the length of `message` as a varint, then the message.
pub(crate) fn put_delimited(message: &impl Message, output: &mut BytesMut) {
    // A BytesMut grows: encoding into it cannot fail.
    let _infallible = message.encode_length_delimited(output);
}

/// Takes a message from the front if it is complete, and takes nothing otherwise.
///
/// # Errors
/// A length above `length_max`, or bytes that are not such a message.
pub(crate) fn take_delimited<M: Message + Default>(
    what: &'static str,
    length_max: usize,
    input: &mut BytesMut,
) -> Result<Option<M>, Defect> {
    let Some((length, prefix)) = peek_varint(what, input)? else {
        return Ok(None);
    };
    if length as usize > length_max {
        let (length, length_max) = (u64::from(length), length_max as u64);
        return Err(Defect::Length { what, length, length_max });
    }
    if input.len() - prefix < length as usize {
        return Ok(None);
    }
    input.advance(prefix);
    decode(what, input.split_to(length as usize).freeze()).map(Some)
}

/// Takes a message from the front of bytes that must contain all of it.
///
/// # Errors
/// The bytes end too early, or are not such a message.
pub(crate) fn split_delimited<M: Message + Default>(
    what: &'static str,
    input: &mut Bytes,
) -> Result<M, Defect> {
    let (length, prefix) = peek_varint(what, input)?.ok_or(Defect::CutOff { what })?;
    if input.len() - prefix < length as usize {
        return Err(Defect::CutOff { what });
    }
    input.advance(prefix);
    decode(what, input.split_to(length as usize))
}

/// Decodes a message that occupies all of `bytes`.
pub(crate) fn decode<M: Message + Default>(what: &'static str, bytes: Bytes) -> Result<M, Defect> {
    M::decode(bytes).map_err(|error| Defect::Message { what, reason: error.to_string() })
}

/// The varint at the front and its length in bytes; `None` if it is incomplete.
fn peek_varint(what: &'static str, input: &[u8]) -> Result<Option<(u32, usize)>, Defect> {
    let mut value = 0_u64;
    for (index, byte) in input.iter().take(VARINT_BYTES_MAX).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let too_long = Defect::Length { what, length: value, length_max: u64::from(u32::MAX) };
            return u32::try_from(value)
                .map(|value| Some((value, index + 1)))
                .map_err(|_| too_long);
        }
    }
    if input.len() < VARINT_BYTES_MAX {
        return Ok(None);
    }
    Err(Defect::Length { what, length: u64::MAX, length_max: u64::from(u32::MAX) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb;

    fn token() -> pb::Token {
        pb::Token { kind: "k".repeat(200), ..Default::default() }
    }

    #[test]
    fn a_message_is_taken_once_all_of_it_is_there() {
        let mut whole = BytesMut::new();
        put_delimited(&token(), &mut whole);
        for end in 0..whole.len() {
            let mut part = BytesMut::from(&whole[..end]);
            let taken = take_delimited::<pb::Token>("token", 1000, &mut part);
            assert_eq!(taken, Ok(None), "{end} bytes");
            assert_eq!(part.len(), end);
            let split = split_delimited::<pb::Token>("token", &mut part.freeze());
            assert_eq!(split, Err(Defect::CutOff { what: "token" }));
        }
        whole.extend_from_slice(b"more");
        assert_eq!(take_delimited("token", 1000, &mut whole), Ok(Some(token())));
        assert_eq!(&whole[..], b"more");
    }

    #[test]
    fn a_length_is_not_trusted() {
        let mut long = BytesMut::from(&[0xff, 0xff, 0xff, 0xff, 0x0f, 1][..]);
        let taken = take_delimited::<pb::Token>("token", 1000, &mut long);
        assert!(matches!(taken, Err(Defect::Length { length: 0xffff_ffff, .. })));
        let mut endless = BytesMut::from(&[0xff; 6][..]);
        assert!(take_delimited::<pb::Token>("token", 1000, &mut endless).is_err());
        let mut beyond = BytesMut::from(&[0xff, 0xff, 0xff, 0xff, 0x7f][..]);
        assert!(take_delimited::<pb::Token>("token", 1000, &mut beyond).is_err());
    }
}
