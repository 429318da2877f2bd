//! Compression and decompression of blocks, with the framing of Apache HBase's codecs.
//!
//! gz is a plain gzip stream. The others use the format of Hadoop's `BlockCompressorStream`:
//! `u32 raw length (u32 compressed length | compressed bytes)+`, repeated. For zstd, the bare frame
//! that Hadoop's native codec writes can be read too.

use std::cell::RefCell;
use std::io::{Read, Write};

use basalt_model::Compression;
use bytes::{BufMut, Bytes, BytesMut};
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

use super::error::Damage;
use super::fields::Fields;

/// How many bytes are compressed as one piece. It is below the 256 KiB buffers of Hadoop's codecs.
const PIECE_BYTES_MAX: usize = 128 << 10;
/// Hadoop's default for zstd.
const ZSTD_LEVEL: i32 = 3;
/// The first bytes of every zstd frame.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Compresses the blocks of one file.
pub(super) struct Compressor {
    compression: Compression,
    snappy: snap::raw::Encoder,
    zstd: Option<zstd::bulk::Compressor<'static>>,
    piece: Vec<u8>,
}

/// The codec's number in the trailer: its ordinal in HBase's `Compression.Algorithm`.
pub(super) fn codec_number(compression: Compression) -> u32 {
    match compression {
        Compression::Gz => 1,
        Compression::None => 2,
        Compression::Snappy => 3,
        Compression::Lz4 => 4,
        Compression::Zstd => 6,
    }
}

/// The codec with this number, if Basalt supports it.
pub(super) fn from_codec_number(number: u32) -> Option<Compression> {
    [Compression::Gz, Compression::None, Compression::Snappy, Compression::Lz4, Compression::Zstd]
        .into_iter()
        .find(|known| codec_number(*known) == number)
}

/// The codec's name in messages.
pub(super) fn codec_name(compression: Compression) -> &'static str {
    match compression {
        Compression::None => "uncompressed",
        Compression::Gz => "gz",
        Compression::Snappy => "snappy",
        Compression::Lz4 => "lz4",
        Compression::Zstd => "zstd",
    }
}

// === impl Compressor ===

impl Compressor {
    pub(super) fn new(compression: Compression) -> Self {
        Self { compression, snappy: snap::raw::Encoder::new(), zstd: None, piece: Vec::new() }
    }

    pub(super) fn compression(&self) -> Compression {
        self.compression
    }

    /// Appends `raw`, compressed, to `out`. The error is the codec's message.
    pub(super) fn compress(&mut self, raw: &[u8], out: &mut BytesMut) -> Result<(), String> {
        match self.compression {
            Compression::None => out.put_slice(raw),
            Compression::Gz => {
                let level = flate2::Compression::default();
                let mut encoder = GzEncoder::new(out.writer(), level);
                encoder.write_all(raw).map_err(|e| e.to_string())?;
                encoder.finish().map_err(|e| e.to_string())?;
            }
            Compression::Snappy | Compression::Lz4 | Compression::Zstd => {
                if raw.is_empty() {
                    out.put_u32(0);
                }
                for raw_piece in raw.chunks(PIECE_BYTES_MAX) {
                    let length = self.compress_piece(raw_piece)?;
                    out.put_u32(raw_piece.len() as u32);
                    out.put_u32(length as u32);
                    out.put_slice(self.piece.get(..length).unwrap_or_default());
                }
            }
        }
        Ok(())
    }

    /// Compresses into `self.piece`, and returns the compressed length.
    fn compress_piece(&mut self, raw: &[u8]) -> Result<usize, String> {
        let bound = match self.compression {
            Compression::Snappy => snap::raw::max_compress_len(raw.len()),
            Compression::Lz4 => lz4_flex::block::get_maximum_output_size(raw.len()),
            _ => zstd::zstd_safe::compress_bound(raw.len()),
        };
        if self.piece.len() < bound {
            self.piece.resize(bound, 0);
        }
        let piece = self.piece.as_mut_slice();
        match self.compression {
            Compression::Snappy => self.snappy.compress(raw, piece).map_err(|e| e.to_string()),
            Compression::Lz4 => {
                lz4_flex::block::compress_into(raw, piece).map_err(|e| e.to_string())
            }
            _ => {
                let zstd = match &mut self.zstd {
                    Some(zstd) => zstd,
                    none => {
                        let zstd = zstd::bulk::Compressor::new(ZSTD_LEVEL);
                        none.insert(zstd.map_err(|e| e.to_string())?)
                    }
                };
                zstd.compress_to_buffer(raw, piece).map_err(|e| e.to_string())
            }
        }
    }
}

/// Decompresses a block that must have `raw_length` bytes; the caller has bounded that length.
pub(super) fn decompress(
    compression: Compression,
    compressed: &Bytes,
    raw_length: usize,
) -> Result<Bytes, Damage> {
    if compression == Compression::None {
        let found = compressed.len() as i64;
        let bounds = (raw_length as i64, raw_length as i64);
        Damage::check("length of the uncompressed bytes", found, bounds)?;
        return Ok(compressed.clone());
    }
    let mut raw = BytesMut::zeroed(raw_length);
    let length = match compression {
        Compression::Gz => ungzip(compressed, &mut raw)?,
        Compression::Zstd if compressed.starts_with(&ZSTD_MAGIC) => {
            decompress_piece(compression, compressed, &mut raw)?
        }
        _ => decompress_pieces(compression, compressed, &mut raw)?,
    };
    let bounds = (raw_length as i64, raw_length as i64);
    Damage::check("length of the decompressed bytes", length as i64, bounds)?;
    Ok(raw.freeze())
}

fn ungzip(compressed: &[u8], raw: &mut [u8]) -> Result<usize, Damage> {
    let bad = |e: std::io::Error| Damage::Compression {
        codec: codec_name(Compression::Gz),
        reason: e.to_string(),
    };
    let mut decoder = MultiGzDecoder::new(compressed);
    decoder.read_exact(raw).map_err(bad)?;
    // This also makes the decoder verify its own checksum at the end of the stream.
    match decoder.read(&mut [0]).map_err(bad)? {
        0 => Ok(raw.len()),
        more => Ok(raw.len() + more),
    }
}

fn decompress_pieces(
    compression: Compression,
    compressed: &[u8],
    raw: &mut [u8],
) -> Result<usize, Damage> {
    let mut fields = Fields::new(compressed, "length of a compressed piece");
    let mut filled = 0;
    while !fields.rest().is_empty() {
        let record_end = filled + fields.length(raw.len() - filled)?;
        while filled < record_end {
            let piece_length = fields.length(fields.rest().len())?;
            let piece = fields.take(piece_length)?;
            let out = raw.get_mut(filled..record_end).unwrap_or_default();
            let length = decompress_piece(compression, piece, out)?;
            Damage::check("length of a piece", length as i64, (1, out.len() as i64))?;
            filled += length;
        }
    }
    Ok(filled)
}

fn decompress_piece(
    compression: Compression,
    piece: &[u8],
    out: &mut [u8],
) -> Result<usize, Damage> {
    let decompressed = match compression {
        Compression::Snappy => {
            snap::raw::Decoder::new().decompress(piece, out).map_err(|e| e.to_string())
        }
        Compression::Lz4 => lz4_flex::block::decompress_into(piece, out).map_err(|e| e.to_string()),
        _ => unzstd(piece, out).map_err(|e| e.to_string()),
    };
    decompressed.map_err(|reason| Damage::Compression { codec: codec_name(compression), reason })
}

fn unzstd(piece: &[u8], out: &mut [u8]) -> std::io::Result<usize> {
    thread_local! {
        /// Its tables take 100 KB: creating them costs more than decompressing most blocks.
        static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> =
            const { RefCell::new(None) };
    }
    DECOMPRESSOR.with_borrow_mut(|decompressor| match decompressor {
        Some(decompressor) => decompressor.decompress_to_buffer(piece, out),
        none => none.insert(zstd::bulk::Decompressor::new()?).decompress_to_buffer(piece, out),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Compression; 5] = [
        Compression::None,
        Compression::Gz,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];

    fn compressed(compression: Compression, raw: &[u8]) -> Bytes {
        let mut out = BytesMut::new();
        Compressor::new(compression).compress(raw, &mut out).unwrap();
        out.freeze()
    }

    #[test]
    fn every_codec_gives_back_what_it_took() {
        let long: Vec<u8> = (0..400_000u32).map(|i| (i % 251 * i % 13) as u8).collect();
        for raw in [&b""[..], b"a", b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab", &long] {
            for compression in ALL {
                let packed = compressed(compression, raw);
                let unpacked = decompress(compression, &packed, raw.len()).unwrap();
                assert_eq!(unpacked, raw, "{compression:?}");
            }
        }
    }

    #[test]
    fn a_wrong_length_or_cut_is_refused() {
        let raw = [7u8; 1000];
        for compression in ALL {
            let packed = compressed(compression, &raw);
            assert!(decompress(compression, &packed, 999).is_err(), "{compression:?}");
            assert!(decompress(compression, &packed, 1001).is_err(), "{compression:?}");
            for length in 0..packed.len() {
                let cut = decompress(compression, &packed.slice(..length), 1000);
                assert!(cut.is_err(), "{compression:?} cut to {length}");
            }
        }
    }

    #[test]
    fn a_bare_zstd_frame_is_read() {
        let raw = [7u8; 1000];
        let frame = Bytes::from(zstd::bulk::compress(&raw, 1).unwrap());
        assert_eq!(decompress(Compression::Zstd, &frame, 1000).unwrap(), &raw[..]);
    }

    #[test]
    fn pieces_that_share_one_record_are_read() {
        let mut framed = BytesMut::new();
        framed.put_u32(10);
        for half in [b"01234", b"56789"] {
            let piece = snap::raw::Encoder::new().compress_vec(half).unwrap();
            framed.put_u32(piece.len() as u32);
            framed.put_slice(&piece);
        }
        let raw = decompress(Compression::Snappy, &framed.freeze(), 10).unwrap();
        assert_eq!(&raw[..], b"0123456789");
    }
}
