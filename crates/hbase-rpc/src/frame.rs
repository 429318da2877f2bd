//! Frames: the format of calls and answers on a connection.
//!
//! ```text
//! client: "HBas" 0 auth | i32 length, ConnectionHeader | call*
//! call:   i32 length | varint, RequestHeader  | varint, message | cell block
//! answer: i32 length | varint, ResponseHeader | varint, message | cell block
//! ```
//! Answers may come in any order and are matched by their call id. An answer with an exception has
//! no message. Before its preamble a client may send `Securi` (to ask for the server's Kerberos
//! name), or `Regist` instead of it (to ask for the cluster id).

use basalt_model::Cell;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;

use crate::{CellBlockCodec, Error, Exception, Result, pb};

/// The length of every preamble, in bytes.
pub const PREAMBLE_BYTES: usize = 6;
/// The call id of answers to special preambles.
pub const PREAMBLE_CALL_ID: u32 = u32::MAX;
/// The default for the largest accepted frame, as in HBase.
pub const FRAME_BYTES_MAX: usize = 256 << 20;
/// The preamble of a client that logs in by name only.
pub const SIMPLE_PREAMBLE: [u8; PREAMBLE_BYTES] = *b"HBas\x00\x50";

/// The length field before every frame.
const LENGTH_BYTES: usize = 4;
/// How much an empty buffer reads from the connection at once, in bytes.
const READ_BYTES: usize = 64 << 10;

/// How a client opens a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Preamble {
    /// For calls, with a login by name.
    Simple,
    /// Asks for the cluster id; the answer ends the connection.
    Registry,
    /// Asks for the server's Kerberos name. The client then sends the usual preamble.
    Security,
    /// An unsupported version of the protocol.
    WrongVersion(u8),
    /// An unsupported login method.
    WrongLogin(u8),
    /// Not this protocol.
    Unknown,
}

/// A call, as received.
#[derive(Clone, Debug)]
pub struct Request {
    /// Identifies the call; its answer has the same id.
    pub call_id: u32,
    /// The method of the connection's service.
    pub method: String,
    /// The request message, not decoded yet.
    pub message: Bytes,
    /// The cells beside it; they share the memory of the frame.
    pub cells: Vec<Cell>,
    /// How long the client waits, in milliseconds; 0 if it sets no timeout.
    pub timeout_ms: u32,
    /// 0 is normal, 200 high.
    pub priority: u32,
}

/// An answer, as received.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The call that it answers.
    pub call_id: u32,
    /// The response message, not decoded yet, and the cells beside it; or the exception.
    pub result: std::result::Result<(Bytes, Vec<Cell>), Exception>,
}

/// Splits a byte stream into frames.
#[derive(Debug)]
pub struct FrameBuffer {
    buffer: BytesMut,
    length_max: usize,
}

// === impl Preamble ===

impl Preamble {
    /// Parses the first bytes of a connection.
    pub fn parse(bytes: [u8; PREAMBLE_BYTES]) -> Self {
        match &bytes {
            b"Regist" => Self::Registry,
            b"Securi" => Self::Security,
            [b'H', b'B', b'a', b's', 0, 0x50] => Self::Simple,
            [b'H', b'B', b'a', b's', 0, login] => Self::WrongLogin(*login),
            [b'H', b'B', b'a', b's', version, _] => Self::WrongVersion(*version),
            _ => Self::Unknown,
        }
    }
}

// === impl FrameBuffer ===

impl FrameBuffer {
    /// A buffer that rejects frames above `length_max` bytes.
    pub fn new(length_max: usize) -> Self {
        let buffer = BytesMut::new();
        Self { buffer, length_max }
    }

    /// Sets the limit to `length_max` bytes for all further frames.
    pub fn set_length_max(&mut self, length_max: usize) {
        self.length_max = length_max;
    }

    /// The buffer to which the next bytes of the stream are appended. It has free space.
    pub fn space(&mut self) -> &mut BytesMut {
        if self.must_grow() {
            self.buffer.reserve(self.room().max(READ_BYTES));
        }
        &mut self.buffer
    }

    /// Whether [`Self::space`] must first move the buffered bytes.
    pub(crate) fn must_grow(&self) -> bool {
        self.buffer.capacity() - self.buffer.len() < self.room()
    }

    /// How much space to add. It grows with the bytes that have arrived, because the length that a
    /// peer announces is not trusted.
    fn room(&self) -> usize {
        let wanted = self.announced().unwrap_or(0).saturating_sub(self.buffer.len());
        wanted.clamp(READ_BYTES / 4, self.buffer.len().max(READ_BYTES))
    }

    /// The next complete frame without its length, if there is one.
    ///
    /// # Errors
    /// [`Error::FrameTooLong`]; the frame's bytes stay in the buffer.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>> {
        let Some(end) = self.announced() else {
            return Ok(None);
        };
        let length = end - LENGTH_BYTES;
        if length > self.length_max {
            return Err(Error::FrameTooLong {
                length: length as u64,
                length_max: self.length_max as u64,
            });
        }
        if self.buffer.len() < end {
            return Ok(None);
        }
        let mut frame = self.buffer.split_to(end).freeze();
        frame.advance(LENGTH_BYTES);
        Ok(Some(frame))
    }

    /// Whether there is a complete frame.
    pub fn has_frame(&self) -> bool {
        self.announced().is_some_and(|end| self.buffer.len() >= end)
    }

    /// Takes the first `N` bytes, if there are so many.
    pub fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let bytes = *self.buffer.first_chunk::<N>()?;
        self.buffer.advance(N);
        Some(bytes)
    }

    /// Drops up to `length` buffered bytes, and returns how many.
    pub fn discard(&mut self, length: usize) -> usize {
        let length = length.min(self.buffer.len());
        self.buffer.advance(length);
        length
    }

    /// The bytes that have arrived and were not taken.
    pub fn peek(&self) -> &[u8] {
        &self.buffer
    }

    /// The end of the first frame.
    fn announced(&self) -> Option<usize> {
        let length = u32::from_be_bytes(*self.buffer.first_chunk()?);
        Some(LENGTH_BYTES + length as usize)
    }
}

/// Appends the header of a connection, after [`SIMPLE_PREAMBLE`].
pub fn encode_connection_header(header: &pb::ConnectionHeader, output: &mut BytesMut) {
    output.put_u32(header.encoded_len() as u32);
    encode(header, output);
}

/// Appends a call. Cells need a `codec`.
pub fn encode_request(
    header: &mut pb::RequestHeader,
    message: &impl Message,
    cells: &[Cell],
    codec: CellBlockCodec,
    output: &mut BytesMut,
) {
    header.request_param = Some(true);
    header.cell_block_meta = block_meta(cells, codec);
    let block = header.cell_block_meta.and_then(|meta| meta.length).unwrap_or(0);
    let length = delimited(header.encoded_len()) + delimited(message.encoded_len());
    output.reserve(LENGTH_BYTES + length + block as usize);
    output.put_u32(length as u32 + block);
    encode_delimited(header, output);
    encode_delimited(message, output);
    codec.encode(cells, output);
}

/// Decodes a call from its frame.
///
/// # Errors
/// [`Error::BadFrame`], [`Error::BadMessage`], [`Error::BadCellBlock`] or [`Error::Model`];
/// [`peek_call_id`] returns the id of the call.
pub fn decode_request(frame: Bytes, codec: Option<CellBlockCodec>) -> Result<Request> {
    let mut decoding = begin_request(frame, codec)?;
    while !decoding.is_done_after(usize::MAX)? {}
    Ok(decoding.request)
}

/// A call whose cells are not all decoded yet, because decoding takes long if there are millions.
#[derive(Debug)]
pub(crate) struct DecodingRequest {
    /// The call, with the cells decoded so far.
    pub(crate) request: Request,
    /// The remaining cells, and their codec.
    rest: Option<(CellBlockCodec, Bytes)>,
}

impl DecodingRequest {
    /// Decodes about `bytes_max` more bytes of cells. Returns true if no cells are left.
    ///
    /// # Errors
    /// As [`decode_request`].
    pub(crate) fn is_done_after(&mut self, bytes_max: usize) -> Result<bool> {
        let Some((codec, block)) = &mut self.rest else { return Ok(true) };
        codec.decode_some(block, bytes_max, &mut self.request.cells)?;
        Ok(block.is_empty())
    }
}

/// Decodes a call up to its cells.
///
/// # Errors
/// As [`decode_request`].
pub(crate) fn begin_request(
    mut frame: Bytes,
    codec: Option<CellBlockCodec>,
) -> Result<DecodingRequest> {
    let header = pb::RequestHeader::decode(split_delimited(&mut frame)?)
        .map_err(bad_message("RequestHeader"))?;
    if !header.request_param() {
        return Err(Error::BadFrame { reason: "a call without a request message" });
    }
    let message = split_delimited(&mut frame)?;
    let rest = split_block(header.cell_block_meta, frame, codec)?;
    let request = Request {
        call_id: header.call_id(),
        message,
        cells: Vec::new(),
        timeout_ms: header.timeout(),
        priority: header.priority(),
        method: header.method_name.unwrap_or_default(),
    };
    Ok(DecodingRequest { request, rest })
}

/// The call id in a request's frame, or in the beginning of one.
pub fn peek_call_id(frame: &[u8]) -> Option<u32> {
    let mut rest = frame;
    let length = prost::decode_length_delimiter(&mut rest).ok()?;
    let header = rest.get(..length)?;
    pb::RequestHeader::decode(header).ok()?.call_id
}

/// Appends an answer whose message is already encoded. Without a `codec` there must be no cells.
pub fn encode_answer(
    call_id: u32,
    message: &[u8],
    cells: &[Cell],
    codec: Option<CellBlockCodec>,
    output: &mut BytesMut,
) {
    let meta = codec.and_then(|codec| block_meta(cells, codec));
    let block = meta.and_then(|meta| meta.length).unwrap_or(0);
    let header =
        pb::ResponseHeader { call_id: Some(call_id), exception: None, cell_block_meta: meta };
    let length = delimited(header.encoded_len()) + delimited(message.len());
    output.reserve(LENGTH_BYTES + length + block as usize);
    output.put_u32(length as u32 + block);
    encode_delimited(&header, output);
    prost::encode_length_delimiter(message.len(), output).unwrap_or_default();
    output.extend_from_slice(message);
    if let Some(codec) = codec {
        codec.encode(cells, output);
    }
}

/// Appends an answer that is an exception.
pub fn encode_exception(call_id: u32, exception: &Exception, output: &mut BytesMut) {
    let header = pb::ResponseHeader {
        call_id: Some(call_id),
        exception: Some(exception.to_response()),
        cell_block_meta: None,
    };
    output.put_u32(delimited(header.encoded_len()) as u32);
    encode_delimited(&header, output);
}

/// Decodes an answer from its frame.
///
/// # Errors
/// As [`decode_request`].
pub fn decode_answer(mut frame: Bytes, codec: Option<CellBlockCodec>) -> Result<Answer> {
    let header = pb::ResponseHeader::decode(split_delimited(&mut frame)?)
        .map_err(bad_message("ResponseHeader"))?;
    let call_id = header.call_id();
    let result = match header.exception {
        Some(exception) => Err(Exception::from_response(exception)),
        None => {
            let message = split_delimited(&mut frame)?;
            Ok((message, decode_block(header.cell_block_meta, frame, codec)?))
        }
    };
    Ok(Answer { call_id, result })
}

/// Decodes a message; `name` is its name in the error.
///
/// # Errors
/// [`Error::BadMessage`].
pub fn decode_message<M: Message + Default>(message: Bytes, name: &'static str) -> Result<M> {
    M::decode(message).map_err(bad_message(name))
}

fn bad_message(message: &'static str) -> impl Fn(prost::DecodeError) -> Error {
    move |source| Error::BadMessage { message, source }
}

fn delimited(length: usize) -> usize {
    prost::length_delimiter_len(length) + length
}

// Encoding fails only if the output has no space, and a `BytesMut` grows.
fn encode(message: &impl Message, output: &mut BytesMut) {
    message.encode(output).unwrap_or_default();
}

fn encode_delimited(message: &impl Message, output: &mut BytesMut) {
    message.encode_length_delimited(output).unwrap_or_default();
}

fn split_delimited(frame: &mut Bytes) -> Result<Bytes> {
    let length = prost::decode_length_delimiter(&mut *frame)
        .map_err(|_| Error::BadFrame { reason: "the length of a message is cut off" })?;
    if length > frame.len() {
        return Err(Error::BadFrame { reason: "a message is cut off" });
    }
    Ok(frame.split_to(length))
}

fn block_meta(cells: &[Cell], codec: CellBlockCodec) -> Option<pb::CellBlockMeta> {
    (!cells.is_empty())
        .then(|| pb::CellBlockMeta { length: Some(codec.encoded_length(cells) as u32) })
}

fn decode_block(
    meta: Option<pb::CellBlockMeta>,
    rest: Bytes,
    codec: Option<CellBlockCodec>,
) -> Result<Vec<Cell>> {
    match split_block(meta, rest, codec)? {
        Some((codec, block)) => codec.decode(block),
        None => Ok(Vec::new()),
    }
}

/// The cells beside a message, not decoded; `None` if there are none.
fn split_block(
    meta: Option<pb::CellBlockMeta>,
    mut rest: Bytes,
    codec: Option<CellBlockCodec>,
) -> Result<Option<(CellBlockCodec, Bytes)>> {
    let length = meta.map_or(0, |meta| meta.length()) as usize;
    if length == 0 {
        return Ok(None);
    }
    if length > rest.len() {
        return Err(Error::BadCellBlock { reason: "the block is cut off" });
    }
    match codec {
        Some(codec) => Ok(Some((codec, rest.split_to(length)))),
        None => Err(Error::BadCellBlock {
            reason: "cells arrived on a connection without a negotiated codec",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const CODEC: CellBlockCodec = CellBlockCodec::KeyValue;

    fn cells(count: usize) -> Vec<Cell> {
        (0..count)
            .map(|index| Cell::put(b"row", b"f", &[index as u8], 1, b"value").unwrap())
            .collect()
    }

    fn a_request(cell_count: usize) -> Bytes {
        let mut header = pb::RequestHeader {
            call_id: Some(7),
            method_name: Some("Get".to_owned()),
            timeout: Some(250),
            ..Default::default()
        };
        let message = pb::GetClusterIdResponse { cluster_id: Some("c".to_owned()) };
        let mut output = BytesMut::new();
        encode_request(&mut header, &message, &cells(cell_count), CODEC, &mut output);
        output.freeze()
    }

    #[test]
    fn a_request_is_what_java_writes() {
        let mut header = pb::RequestHeader {
            call_id: Some(1),
            method_name: Some("Get".to_owned()),
            ..Default::default()
        };
        let mut output = BytesMut::new();
        let message = pb::GetClusterIdRequest {};
        encode_request(&mut header, &message, &[], CODEC, &mut output);
        // Written by hand: field 1 = 1, field 3 = "Get", field 4 = true; an empty message.
        let golden = b"\x00\x00\x00\x0b\x09\x08\x01\x1a\x03Get\x20\x01\x00";
        assert_eq!(output[..], golden[..]);
    }

    #[test]
    fn a_request_crosses_whole() {
        let mut buffer = FrameBuffer::new(1 << 20);
        let bytes = a_request(3);
        for byte in &bytes {
            assert_eq!(buffer.next_frame().unwrap(), None);
            buffer.space().put_u8(*byte);
        }
        let frame = buffer.next_frame().unwrap().unwrap();
        assert_eq!(peek_call_id(&frame), Some(7));
        let request = decode_request(frame, Some(CODEC)).unwrap();
        assert_eq!((request.call_id, request.timeout_ms), (7, 250));
        assert_eq!(request.method, "Get");
        assert_eq!(request.cells, cells(3));
    }

    #[test]
    fn cells_need_a_codec() {
        let frame = a_request(1).slice(4..);
        assert!(decode_request(frame, None).is_err());
    }

    #[test]
    fn a_frame_that_is_too_long_is_refused_by_its_length() {
        let mut buffer = FrameBuffer::new(100);
        buffer.space().put_u32(101);
        assert!(matches!(buffer.next_frame(), Err(Error::FrameTooLong { length: 101, .. })));
    }

    #[test]
    fn a_length_alone_takes_no_memory() {
        let mut buffer = FrameBuffer::new(FRAME_BYTES_MAX);
        buffer.space().put_u32(FRAME_BYTES_MAX as u32);
        assert_eq!(buffer.next_frame().unwrap(), None);
        assert!(buffer.space().capacity() <= 2 * READ_BYTES);
    }

    #[test]
    fn answers_cross_whole() {
        let mut output = BytesMut::new();
        encode_answer(3, b"\x0a\x01c", &cells(2), Some(CODEC), &mut output);
        encode_exception(4, &Exception::unknown_method("Nonsense"), &mut output);
        let mut buffer = FrameBuffer::new(1 << 20);
        buffer.space().extend_from_slice(&output);
        let mut next =
            || decode_answer(buffer.next_frame().unwrap().unwrap(), Some(CODEC)).unwrap();
        let answer = next();
        assert_eq!(answer.call_id, 3);
        assert_eq!(answer.result.unwrap(), (Bytes::from("\x0a\x01c"), cells(2)));
        let refusal = next();
        assert_eq!(refusal.call_id, 4);
        assert!(refusal.result.unwrap_err().do_not_retry());
    }

    #[test]
    fn connection_openings_are_recognised() {
        assert_eq!(Preamble::parse(SIMPLE_PREAMBLE), Preamble::Simple);
        assert_eq!(Preamble::parse(*b"Regist"), Preamble::Registry);
        assert_eq!(Preamble::parse(*b"Securi"), Preamble::Security);
        assert_eq!(Preamble::parse(*b"HBas\x00\x51"), Preamble::WrongLogin(0x51));
        assert_eq!(Preamble::parse(*b"HBas\x01\x50"), Preamble::WrongVersion(1));
        assert_eq!(Preamble::parse(*b"GET / "), Preamble::Unknown);
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in vec(any::<u8>(), 0..200)) {
            let bytes = Bytes::from(bytes);
            let _ = decode_request(bytes.clone(), Some(CODEC));
            let _ = decode_answer(bytes.clone(), Some(CODEC));
            let _ = peek_call_id(&bytes);
        }

        #[test]
        fn a_damaged_request_is_decoded_or_refused(at in 4_usize..60, byte in any::<u8>()) {
            let mut bytes = BytesMut::from(&a_request(2)[..]);
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
            let frame = bytes.freeze().slice(4..);
            let _ = decode_request(frame, Some(CODEC));
        }
    }
}
