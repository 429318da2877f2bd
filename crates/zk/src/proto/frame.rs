//! Frames: an `i32` length, followed by that many bytes.

use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

use super::Encode;

/// The longest frame that peers accept by default (`jute.maxbuffer`).
pub const FRAME_BYTES_MAX: usize = 0xf_ffff;

/// How much of an announced frame is allocated before any of it has arrived.
const ALLOCATE_BYTES_MAX: usize = 64 << 10;

/// The length of the prefix.
const PREFIX_BYTES: usize = 4;

/// Reads frames, each into its own memory.
#[derive(Debug)]
pub struct FrameReader<R> {
    reader: BufReader<R>,
    bytes_max: usize,
    /// The part of the frame that has arrived, including the prefix.
    partial: BytesMut,
}

/// Why no frame could be read.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The announced length is out of bounds.
    #[error("a frame of {length} bytes was announced; 0 to {bytes_max} are allowed")]
    Length {
        /// The length as sent. In a connection's first frame it may be a four-letter word
        /// (`i32::to_be_bytes` returns it).
        length: i32,
        /// The limit.
        bytes_max: usize,
    },
    /// The connection failed, or ended inside a frame.
    #[error(transparent)]
    Io(#[from] io::Error),
}

// === impl FrameReader ===

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads frames of at most `bytes_max` from `reader`.
    pub fn new(reader: R, bytes_max: usize) -> Self {
        Self { reader: BufReader::new(reader), bytes_max, partial: BytesMut::new() }
    }

    /// Accepts frames of at most `bytes_max` from now on.
    pub fn set_bytes_max(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    /// The length of the next frame, once its prefix has arrived, or `None` if the peer closed the
    /// connection between frames. Cancel safe.
    ///
    /// # Errors
    /// See [`FrameError`].
    pub async fn next_length(&mut self) -> Result<Option<usize>, FrameError> {
        loop {
            if let Some(length) = self.length()? {
                return Ok(Some(length));
            }
            let missing = PREFIX_BYTES - self.partial.len();
            self.partial.reserve(missing);
            let mut room = (&mut self.partial).limit(missing);
            if self.reader.read_buf(&mut room).await? == 0 {
                if self.partial.is_empty() {
                    return Ok(None);
                }
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }

    /// The next frame without its prefix, or `None` if the peer closed the connection between
    /// frames. Cancel safe.
    ///
    /// # Errors
    /// See [`FrameError`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, FrameError> {
        loop {
            let wanted_bytes = match self.length()? {
                Some(length) if self.partial.len() == PREFIX_BYTES + length => {
                    let mut frame = std::mem::take(&mut self.partial);
                    return Ok(Some(frame.split_off(PREFIX_BYTES).freeze()));
                }
                Some(length) => PREFIX_BYTES + length - self.partial.len(),
                None => PREFIX_BYTES - self.partial.len(),
            };
            self.partial.reserve(wanted_bytes.min(ALLOCATE_BYTES_MAX));
            let mut room = (&mut self.partial).limit(wanted_bytes);
            if self.reader.read_buf(&mut room).await? == 0 {
                if self.partial.is_empty() {
                    return Ok(None);
                }
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }

    /// The length that the prefix announces, once the prefix has arrived.
    fn length(&self) -> Result<Option<usize>, FrameError> {
        let Some(prefix) = self.partial.first_chunk::<PREFIX_BYTES>() else {
            return Ok(None);
        };
        let length = i32::from_be_bytes(*prefix);
        match usize::try_from(length) {
            Ok(fitting) if fitting <= self.bytes_max => Ok(Some(fitting)),
            _ => Err(FrameError::Length { length, bytes_max: self.bytes_max }),
        }
    }
}

/// The frame, including its prefix, that contains `records` in order.
pub fn encode(records: &[&dyn Encode]) -> Bytes {
    let mut output = BytesMut::new();
    output.put_i32(0);
    for record in records {
        record.encode(&mut output);
    }
    // A frame whose length does not fit into an i32 exceeds the limit of every reader.
    let length = i32::try_from(output.len() - PREFIX_BYTES).unwrap_or(i32::MAX);
    if let Some(prefix) = output.first_chunk_mut::<PREFIX_BYTES>() {
        *prefix = length.to_be_bytes();
    }
    output.freeze()
}

/// Writes the frame that contains `records` in order, and flushes. Not cancel safe.
///
/// # Errors
/// The errors of the connection.
pub async fn write(
    writer: &mut (impl AsyncWrite + Unpin),
    records: &[&dyn Encode],
) -> io::Result<()> {
    writer.write_all(&encode(records)).await?;
    writer.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(bytes: &[u8]) -> FrameReader<&[u8]> {
        FrameReader::new(bytes, FRAME_BYTES_MAX)
    }

    #[tokio::test]
    async fn frames_are_read_in_order_until_the_peer_closes() {
        let mut both = encode(&[&7i32, &true]).to_vec();
        both.extend_from_slice(&encode(&[]));
        let mut reader = reader(&both);
        assert_eq!(reader.next().await.unwrap().unwrap().as_ref(), [0, 0, 0, 7, 1]);
        assert_eq!(reader.next().await.unwrap().unwrap().as_ref(), [0u8; 0]);
        assert!(reader.next().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_frame_larger_than_what_is_allocated_at_first_is_whole() {
        let body = vec![9u8; 5 * ALLOCATE_BYTES_MAX];
        let frame = encode(&[&Bytes::from(body.clone())]);
        let read = reader(&frame).next().await.unwrap().unwrap();
        assert_eq!(read.get(4..).unwrap(), body);
    }

    #[tokio::test]
    async fn a_length_out_of_bounds_is_refused_and_given_back() {
        let error = reader(b"ruok").next().await.unwrap_err();
        let FrameError::Length { length, .. } = error else {
            panic!("{error}");
        };
        assert_eq!(&length.to_be_bytes(), b"ruok");
        assert!(reader(&[0xff; 4]).next().await.is_err());
        assert!(reader(&[0, 0x10, 0, 0]).next().await.is_err());
    }

    #[tokio::test]
    async fn a_frame_cut_short_is_an_error() {
        for cut in [&[0, 0][..], &[0, 0, 0, 2, 1][..]] {
            assert!(matches!(reader(cut).next().await, Err(FrameError::Io(_))));
        }
    }

    #[tokio::test]
    async fn a_read_given_up_loses_nothing() {
        let (mut near, far) = tokio::io::duplex(64);
        let mut reader = FrameReader::new(far, FRAME_BYTES_MAX);
        for byte in encode(&[&7i32]) {
            tokio::select! {
                biased;
                frame = reader.next() => panic!("{frame:?} came early"),
                () = tokio::task::yield_now() => {}
            }
            near.write_all(&[byte]).await.unwrap();
        }
        assert_eq!(reader.next().await.unwrap().unwrap().as_ref(), [0, 0, 0, 7]);
    }
}
