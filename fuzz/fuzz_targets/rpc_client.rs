//! A server's side of a connection, as the client of the HBase RPC reads it: answers, exceptions,
//! cell blocks. Each answer is also decoded on its own.
//!
//! Input: a selector byte, then the bytes of the connection. If the selector is odd, the bytes are
//! split into frames with correct lengths.

#![no_main]

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use basalt_fuzz::{block_on, choice, join_parts, seed, two_parts};
use basalt_hbase_rpc::{
    CellBlockCodec, Connection as RpcConnection, ConnectionOptions, Exception, ExceptionKind,
    Service, frame, pb,
};
use basalt_model::Cell;
use basalt_runtime::{Connection, Listener, Network, NetworkSource};
use bytes::{BufMut, Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use tokio::io::AsyncWriteExt;

/// A network on which every server sends the same bytes.
struct Saying(Vec<u8>);

#[async_trait]
impl NetworkSource for Saying {
    async fn connect(&self, _: &str) -> io::Result<Connection> {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let bytes = self.0.clone();
        tokio::spawn(async move {
            // Wait until the calls are pending.
            tokio::time::sleep(Duration::from_millis(1)).await;
            let _ = far.write_all(&bytes).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        });
        Ok(Box::new(near))
    }

    async fn listen(&self, _: SocketAddr) -> io::Result<Box<dyn Listener>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

fuzz_target!(init: seed(seeds), |input: &[u8]| {
    let (choice, rest) = choice(input);
    let bytes = if choice & 1 == 0 { rest.to_vec() } else { framed(rest) };
    let _ = frame::decode_answer(Bytes::copy_from_slice(rest), Some(CellBlockCodec::KeyValue));
    let _ = frame::decode_answer(Bytes::copy_from_slice(rest), None);
    block_on(async {
        let network = Network::new(Saying(bytes));
        let mut options = ConnectionOptions::new(Service::Client, "me");
        options.answer_bytes_max = 1 << 16;
        options.codec = CellBlockCodec::KeyValueWithTags;
        let Ok(connection) = RpcConnection::open(&network, "server:1", &options).await else {
            return;
        };
        let message = pb::GetRequest::default();
        let wait = Duration::from_millis(50);
        let call = || connection.call_decoded::<pb::GetResponse>("Get", &message, &[], wait);
        let _ = tokio::join!(call(), call(), call());
    });
});

fn framed(mut rest: &[u8]) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    while !rest.is_empty() {
        let (body, next) = two_parts(rest);
        bytes.put_u32(body.len() as u32);
        bytes.put_slice(body);
        rest = if next.len() < rest.len() { next } else { &[] };
    }
    bytes.to_vec()
}

fn seeds() -> Vec<Vec<u8>> {
    let cell = basalt_fuzz::ok(Cell::put(b"row", b"f", b"q", 1, b"value"));
    let codec = Some(CellBlockCodec::KeyValueWithTags);
    let moved = Exception::new(ExceptionKind::NotServingRegion, "elsewhere");
    let (mut answer, mut exception) = (BytesMut::new(), BytesMut::new());
    frame::encode_answer(0, &[], &[cell], codec, &mut answer);
    frame::encode_exception(1, &moved, &mut exception);
    let both = join_parts(&answer[4..], &join_parts(&exception[4..], &[]));
    vec![
        [&[0], &answer[..], &exception[..]].concat(),
        [&[1], &both[..]].concat(),
        [&[0], &exception[..]].concat(),
        answer[3..].to_vec(),
    ]
}
