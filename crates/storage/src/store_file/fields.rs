//! Numbers and byte arrays in the serialization of Hadoop and HBase: big endian, with Hadoop's
//! variable-length integers.

use bytes::{BufMut, Bytes};

use super::error::Damage;

/// Reads fields from the start of a byte slice, with bounds checks.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
    /// The structure being read, for error messages.
    what: &'static str,
}

// === impl Fields ===

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { rest: bytes, what }
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], Damage> {
        let (taken, rest) =
            self.rest.split_at_checked(length).ok_or(Damage::CutOff { what: self.what })?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH], Damage> {
        let (taken, rest) =
            self.rest.split_first_chunk::<LENGTH>().ok_or(Damage::CutOff { what: self.what })?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Damage> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Damage> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn i8(&mut self) -> Result<i8, Damage> {
        self.array().map(i8::from_be_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32, Damage> {
        self.array().map(i32::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Damage> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64, Damage> {
        self.array().map(i64::from_be_bytes)
    }

    /// An `i32` that is a count or a length.
    pub(super) fn length(&mut self, length_max: usize) -> Result<usize, Damage> {
        let length = i64::from(self.i32()?);
        Damage::check(self.what, length, (0, length_max as i64))?;
        Ok(length as usize)
    }

    /// HBase's compressed `int`, seven bits per byte and the lowest first, that is a count or a
    /// length.
    pub(super) fn packed_length(&mut self) -> Result<usize, Damage> {
        let (mut length, mut shift) = (0i64, 0);
        loop {
            let byte = self.u8()?;
            // All bits of the fifth byte count. If it says that more bytes follow, the number is
            // too large.
            let bits = if shift < 28 { byte & 0x7f } else { byte };
            length |= i64::from(bits) << shift;
            if bits == byte {
                Damage::check(self.what, length, (0, i32::MAX.into()))?;
                return Ok(length as usize);
            }
            shift += 7;
        }
    }

    /// Hadoop's `writeVLong`: one byte for -112..=127, otherwise a byte with sign and length before
    /// the number.
    pub(super) fn variable(&mut self) -> Result<i64, Damage> {
        let first = self.i8()?;
        let (negative, length) = match first {
            -112..=127 => return Ok(first.into()),
            -120..=-113 => (false, -(i32::from(first) + 112)),
            _ => (true, -(i32::from(first) + 120)),
        };
        let bytes = self.take(length as usize)?;
        let value = bytes.iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte)) as i64;
        Ok(if negative { !value } else { value })
    }

    /// A byte array, preceded by its variable-length length.
    pub(super) fn byte_array(&mut self) -> Result<&'a [u8], Damage> {
        let length = self.variable()?;
        Damage::check(self.what, length, (0, self.rest.len() as i64))?;
        self.take(length as usize)
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Checks that no bytes are left.
    pub(super) fn finish(self) -> Result<(), Damage> {
        match self.rest.len() {
            0 => Ok(()),
            length => Err(Damage::Trailing { what: self.what, length }),
        }
    }
}

/// Writes a number in the format of Hadoop's `writeVLong`.
pub(super) fn put_variable(out: &mut Vec<u8>, value: i64) {
    if (-112..=127).contains(&value) {
        out.put_i8(value as i8);
        return;
    }
    let (magnitude, base) = if value < 0 { (!value, -120) } else { (value, -112) };
    let length = 8 - magnitude.leading_zeros() as usize / 8;
    out.put_i8(base - length as i8);
    out.put_uint(magnitude as u64, length);
}

/// Writes a byte array, preceded by its variable-length length.
pub(super) fn put_byte_array(out: &mut Vec<u8>, bytes: &[u8]) {
    put_variable(out, bytes.len() as i64);
    out.put_slice(bytes);
}

/// The `i64` in `bytes`, in the format of HBase's `Bytes.toBytes(long)`; `None` unless there are
/// exactly 8 bytes.
pub(super) fn i64_from(bytes: &Bytes) -> Option<i64> {
    bytes.as_ref().try_into().ok().map(i64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variable_length_integers_are_read_as_written() {
        let values = [
            0,
            1,
            -1,
            127,
            128,
            -112,
            -113,
            255,
            256,
            65_535,
            -65_536,
            i64::MAX,
            i64::MIN,
            1 << 40,
        ];
        for value in values {
            let mut bytes = Vec::new();
            put_variable(&mut bytes, value);
            let mut fields = Fields::new(&bytes, "number");
            assert_eq!(fields.variable(), Ok(value), "{bytes:x?}");
            fields.finish().unwrap();
        }
    }

    #[test]
    fn variable_length_integers_have_hadoops_bytes() {
        let bytes = |value| {
            let mut bytes = Vec::new();
            put_variable(&mut bytes, value);
            bytes
        };
        assert_eq!(bytes(128), [0x8f, 0x80]);
        assert_eq!(bytes(-113), [0x87, 0x70]);
        assert_eq!(bytes(1_000_000), [0x8d, 0x0f, 0x42, 0x40]);
    }

    #[test]
    fn packed_lengths_are_read_up_to_the_highest_int() {
        let read = |bytes: &[u8]| Fields::new(bytes, "length").packed_length();
        assert_eq!(read(&[0x7f]), Ok(127));
        assert_eq!(read(&[0x80, 0x01]), Ok(128));
        assert_eq!(read(&[0xac, 0x02, 0x77]), Ok(300));
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0x07]), Ok(i32::MAX as usize));
        assert!(read(&[0xff, 0xff, 0xff, 0xff, 0x08]).is_err());
        assert!(read(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x01]).is_err());
        assert!(read(&[0x80]).is_err());
    }

    #[test]
    fn a_length_beyond_the_bytes_is_refused() {
        let mut bytes = Vec::new();
        put_variable(&mut bytes, 1 << 40);
        bytes.push(7);
        assert!(Fields::new(&bytes, "key").byte_array().is_err());
    }
}
