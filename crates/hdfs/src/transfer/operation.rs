//! Requests to a DataNode, and its first response.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::error::{Defect, Error, Result};
use crate::pb;
use crate::wire::{put_delimited, take_delimited};

/// Data bytes per chunk. Each chunk has its own checksum.
pub(crate) const CHUNK_BYTES: usize = 512;
/// The number of CRC-32C among HDFS's checksums.
pub(crate) const CRC32C: u32 = 2;

const VERSION: u16 = 28;
const WRITE_BLOCK: u8 = 80;
const READ_BLOCK: u8 = 81;
/// The maximum length of a response, in bytes: it may include a stack trace.
const RESPONSE_BYTES_MAX: usize = 1 << 20;

/// A request to write a block, as the only member of its pipeline.
#[derive(Clone, Debug)]
pub(crate) struct WriteBlock<'a> {
    pub(crate) block: &'a pb::ExtendedBlock,
    pub(crate) token: &'a pb::Token,
    /// Must not be empty: an empty name means that the writer is another DataNode.
    pub(crate) client_name: &'a str,
    pub(crate) stage: pb::op_write_block::Stage,
    /// The replica must not have more bytes than this.
    pub(crate) bytes_received_max: u64,
    pub(crate) storage_type: Option<pb::StorageType>,
    pub(crate) storage_id: Option<String>,
}

/// A request to read a part of a block.
#[derive(Clone, Debug)]
pub(crate) struct ReadBlock<'a> {
    pub(crate) block: &'a pb::ExtendedBlock,
    pub(crate) token: &'a pb::Token,
    pub(crate) client_name: &'a str,
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

// === impl WriteBlock ===

impl WriteBlock<'_> {
    pub(crate) fn put(self, output: &mut BytesMut) {
        let message = pb::OpWriteBlock {
            header: header(self.block, self.token, self.client_name),
            targets: Vec::new(),
            stage: self.stage.into(),
            pipeline_size: 1,
            bytes_received_min: 0,
            bytes_received_max: self.bytes_received_max,
            latest_generation_stamp: self.block.generation_stamp,
            requested_checksum: pb::Checksum {
                r#type: CRC32C,
                bytes_per_checksum: CHUNK_BYTES as u32,
            },
            caching: Some(pb::CachingStrategy::default()),
            storage_type: self.storage_type.map(Into::into),
            storage_id: self.storage_id,
        };
        put_operation(WRITE_BLOCK, &message, output);
    }
}

// === impl ReadBlock ===

impl ReadBlock<'_> {
    pub(crate) fn put(self, output: &mut BytesMut) {
        let message = pb::OpReadBlock {
            header: header(self.block, self.token, self.client_name),
            offset: self.offset,
            length: self.length,
            send_checksums: Some(true),
            caching: Some(pb::CachingStrategy::default()),
        };
        put_operation(READ_BLOCK, &message, output);
    }
}

fn put_operation(operation: u8, message: &impl prost::Message, output: &mut BytesMut) {
    output.put_u16(VERSION);
    output.put_u8(operation);
    put_delimited(message, output);
}

fn header(block: &pb::ExtendedBlock, token: &pb::Token, client: &str) -> pb::ClientOperationHeader {
    let base = pb::BaseHeader { block: block.clone(), token: Some(token.clone()) };
    pb::ClientOperationHeader { base, client_name: client.to_owned() }
}

/// Reads the response to an operation. Bytes after it stay in `input`.
///
/// # Errors
/// [`Error::Refused`], or the connection failed. Sets no timeout; the caller does.
pub(crate) async fn read_response(
    server: &Arc<str>,
    stream: &mut (impl AsyncRead + Unpin),
    input: &mut BytesMut,
) -> Result<pb::BlockOpResponse> {
    let response: pb::BlockOpResponse =
        read_delimited("response", RESPONSE_BYTES_MAX, server, stream, input).await?;
    match pb::Status::try_from(response.status) {
        Ok(pb::Status::Success) => Ok(response),
        status => Err(Error::Refused {
            server: Arc::clone(server),
            status: status.map_or("an unknown status", |status| status.as_str_name()),
            message: response.message().into(),
        }),
    }
}

/// Reads one message. Bytes after it stay in `input`.
///
/// # Errors
/// The connection failed, or the bytes are not such a message.
pub(crate) async fn read_delimited<M: prost::Message + Default>(
    what: &'static str,
    length_max: usize,
    server: &Arc<str>,
    stream: &mut (impl AsyncRead + Unpin),
    input: &mut BytesMut,
) -> Result<M> {
    loop {
        if let Some(message) =
            take_delimited(what, length_max, input).map_err(|defect| bad(server, defect))?
        {
            return Ok(message);
        }
        read_more(server, stream, input).await?;
    }
}

/// Reads at least one byte.
pub(crate) async fn read_more(
    server: &Arc<str>,
    stream: &mut (impl AsyncRead + Unpin),
    input: &mut BytesMut,
) -> Result<()> {
    match stream.read_buf(input).await {
        Ok(0) => Err(lost(server, "the DataNode closed it")),
        Ok(_) => Ok(()),
        Err(error) => Err(lost(server, error)),
    }
}

pub(crate) fn lost(server: &Arc<str>, reason: impl ToString) -> Error {
    Error::Lost { server: Arc::clone(server), reason: reason.to_string().into() }
}

pub(crate) fn bad(server: &Arc<str>, defect: Defect) -> Error {
    Error::BadAnswer { server: Arc::clone(server), defect }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::split_delimited;

    fn block() -> pb::ExtendedBlock {
        let pool_id = "BP-1".to_owned();
        pb::ExtendedBlock { pool_id, block_id: 1, generation_stamp: 1001, bytes: Some(7) }
    }

    #[test]
    fn a_request_says_version_operation_and_message() {
        let mut output = BytesMut::new();
        let (block, token) = (block(), pb::Token::default());
        let (offset, length) = (512, 100);
        ReadBlock { block: &block, token: &token, client_name: "c", offset, length }
            .put(&mut output);
        let mut message = output.freeze();
        assert_eq!(message.split_to(3)[..], [0, 28, 81]);
        let read: pb::OpReadBlock = split_delimited("request", &mut message).unwrap();
        assert_eq!((read.offset, read.length, read.header.base.block), (512, 100, block));
        assert!(message.is_empty());
    }

    #[tokio::test]
    async fn a_refusal_is_an_error_with_its_reason() {
        let mut bytes = BytesMut::new();
        let mut response = pb::BlockOpResponse::default();
        put_delimited(&response, &mut bytes);
        response.set_status(pb::Status::ErrorAccessToken);
        response.message = Some("no token".to_owned());
        put_delimited(&response, &mut bytes);
        let (server, mut input) = ("dn:1".into(), BytesMut::new());
        let mut stream = &bytes[..];
        assert!(read_response(&server, &mut stream, &mut input).await.is_ok());
        let refused = read_response(&server, &mut stream, &mut input).await.unwrap_err();
        assert_eq!(refused.to_string(), "dn:1 rejected the operation: ERROR_ACCESS_TOKEN no token");
        let ended = read_response(&server, &mut stream, &mut input).await.unwrap_err();
        assert!(matches!(ended, Error::Lost { .. }));
    }
}
