//! A client's side of a connection, as the server of the HBase RPC reads it: preamble, connection
//! header, requests, cell blocks. The handler echoes.
//!
//! Input: a selector byte, then the bytes of the connection. If the selector is odd, the connection
//! is opened correctly, and the remaining bytes are split into frames with correct lengths.

#![no_main]

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use basalt_fuzz::{block_on, choice, join_parts, seed, two_parts};
use basalt_hbase_rpc::{
    Call, CellBlockCodec, Exception, Handler, Reply, ServerOptions, Service, frame, pb, serve,
};
use basalt_model::Cell;
use basalt_runtime::{Connection, Listener, Shutdown};
use bytes::{BufMut, BytesMut};
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

struct Echo;

struct OneConnection(Option<DuplexStream>);

impl Handler for Echo {
    async fn handle(&self, call: Call) -> Result<Reply, Exception> {
        if call.method == "Fail" {
            return Err(Exception::unknown_method(&call.method));
        }
        let cells = if call.caller.codec.is_some() { call.cells } else { Vec::new() };
        Ok(Reply { message: call.message, cells })
    }

    fn cluster_id(&self) -> Option<String> {
        Some("cluster".to_owned())
    }
}

#[async_trait]
impl Listener for OneConnection {
    async fn accept(&mut self) -> io::Result<(Connection, SocketAddr)> {
        match self.0.take() {
            Some(stream) => Ok((Box::new(stream), self.local_address()?)),
            None => pending().await,
        }
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        Ok(([127, 0, 0, 1], 1).into())
    }
}

fuzz_target!(init: seed(seeds), |input: &[u8]| {
    let (choice, rest) = choice(input);
    let bytes = if choice & 1 == 0 { rest.to_vec() } else { framed(choice, rest) };
    block_on(async {
        let (near, far) = tokio::io::duplex(1 << 16);
        let mut options = ServerOptions::new([Service::Client, Service::Admin]);
        options.request_bytes_max = 1 << 16;
        let shutdown = Shutdown::new();
        let listener = Box::new(OneConnection(Some(far)));
        let server = tokio::spawn(serve(listener, Arc::new(Echo), options, shutdown.clone()));
        let (mut answers, mut requests) = tokio::io::split(near);
        let send = async {
            // The server may have closed the connection already.
            let _ = requests.write_all(&bytes).await;
            let _ = requests.shutdown().await;
        };
        let mut answered = Vec::new();
        let (_, _) = tokio::join!(send, answers.read_to_end(&mut answered));
        shutdown.cancel();
        assert!(server.await.is_ok());
    });
});

fn header(choice: u8) -> pb::ConnectionHeader {
    let codec = match choice & 6 {
        0 => None,
        2 => Some(CellBlockCodec::KeyValue),
        _ => Some(CellBlockCodec::KeyValueWithTags),
    };
    pb::ConnectionHeader {
        service_name: Some("ClientService".to_owned()),
        cell_block_codec_class: codec.map(|codec| codec.class_name().to_owned()),
        ..Default::default()
    }
}

fn framed(choice: u8, mut rest: &[u8]) -> Vec<u8> {
    let mut bytes = BytesMut::from(&frame::SIMPLE_PREAMBLE[..]);
    frame::encode_connection_header(&header(choice), &mut bytes);
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
    let message = pb::GetRequest::default();
    let mut call = BytesMut::new();
    for (call_id, method) in [(0, "Get"), (1, "Fail")] {
        let mut header = pb::RequestHeader {
            call_id: Some(call_id),
            method_name: Some(method.to_owned()),
            timeout: Some(5),
            ..Default::default()
        };
        let codec = CellBlockCodec::KeyValueWithTags;
        frame::encode_request(&mut header, &message, &[cell.clone()], codec, &mut call);
    }
    let mut whole = BytesMut::from(&frame::SIMPLE_PREAMBLE[..]);
    frame::encode_connection_header(&header(4), &mut whole);
    whole.put_slice(&call);
    let body = &call[4..4 + call.first_chunk().map_or(0, |l| u32::from_be_bytes(*l)) as usize];
    vec![
        [&[0], &whole[..]].concat(),
        b"\0Regist".to_vec(),
        b"\0SecuriHBas\0\x50".to_vec(),
        b"\0HBas\x01\x50".to_vec(),
        b"\0GET / HTTP/1.1\r\n".to_vec(),
        [&[5], &join_parts(body, &join_parts(body, &[]))[..]].concat(),
        [&[1], &join_parts(body, &[])[..]].concat(),
    ]
}
