//! Just enough of HBase's RPC to send requests that no client would send.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

/// The start of a connection: the preamble, and a header with a user, the service and the codec.
pub(crate) fn opening(service: &str) -> Vec<u8> {
    let codec = b"org.apache.hadoop.hbase.codec.KeyValueCodec";
    let mut header = vec![0x0a, 3, 0x0a, 1, b't', 0x12, service.len() as u8];
    header.extend_from_slice(service.as_bytes());
    header.extend_from_slice(&[0x1a, codec.len() as u8]);
    header.extend_from_slice(codec);
    let mut opening = b"HBas\x00\x50".to_vec();
    opening.extend_from_slice(&(header.len() as u32).to_be_bytes());
    opening.extend_from_slice(&header);
    opening
}

/// Appends a number in protobuf's varint encoding.
pub(crate) fn put_varint(mut number: u64, output: &mut Vec<u8>) {
    while number >= 0x80 {
        output.push(number as u8 | 0x80);
        number >>= 7;
    }
    output.push(number as u8);
}

/// Reads one answer and discards it.
pub(crate) async fn read_answer(stream: &mut (impl AsyncRead + Unpin), patience: Duration) {
    let read = async {
        let length = stream.read_u32().await.unwrap();
        let mut answer = vec![0; length as usize];
        stream.read_exact(&mut answer).await.unwrap();
    };
    timeout(patience, read).await.unwrap();
}
