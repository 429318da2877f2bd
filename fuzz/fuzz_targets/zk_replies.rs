//! A server's side of the ZooKeeper protocol: frames, the connect response, headers, events, every
//! reply. Every record that decodes must survive being encoded and decoded again.
//!
//! Input: a byte that selects the record, then the bytes of a connection.

#![no_main]

use std::fmt::Debug;

use basalt_fuzz::{block_on, choice, ok, seed};
use basalt_zk::proto::{
    ConnectResponse, Create2Response, CreateResponse, Decode, Encode, GetAclResponse,
    GetAllChildrenNumberResponse, GetChildren2Response, GetChildrenResponse, GetDataResponse,
    GetEphemeralsResponse, MultiResponse, MultiResult, ReplyHeader, StatResponse, SyncResponse,
    WatcherEvent, WhoAmIResponse, frame,
};
use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: seed(seeds), |input: &[u8]| {
    let (kind, bytes) = choice(input);
    block_on(async {
        let mut frames = frame::FrameReader::new(bytes, frame::FRAME_BYTES_MAX);
        while let Ok(Some(frame)) = frames.next().await {
            decode(kind, frame);
        }
    });
    decode(kind, Bytes::copy_from_slice(bytes));
});

fn decode(kind: u8, message: Bytes) {
    match kind % 16 {
        0 => again::<ConnectResponse>(message),
        1 => again::<ReplyHeader>(message),
        2 => again::<WatcherEvent>(message),
        3 => again::<CreateResponse>(message),
        4 => again::<Create2Response>(message),
        5 => again::<StatResponse>(message),
        6 => again::<GetDataResponse>(message),
        7 => again::<GetChildrenResponse>(message),
        8 => again::<GetChildren2Response>(message),
        9 => again::<GetAclResponse>(message),
        10 => again::<MultiResponse>(message),
        11 => again::<GetEphemeralsResponse>(message),
        12 => again::<GetAllChildrenNumberResponse>(message),
        13 => again::<WhoAmIResponse>(message),
        _ => again::<SyncResponse>(message),
    }
}

fn again<T: Decode + Encode + PartialEq + Debug>(message: Bytes) {
    if let Ok(record) = T::from_message(message) {
        let mut written = BytesMut::new();
        record.encode(&mut written);
        assert_eq!(ok(T::from_message(written.freeze())), record);
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let names = || vec!["a".to_owned(), "b".to_owned()];
    let data =
        GetDataResponse { data: Some(Bytes::from_static(b"data")).into(), ..Default::default() };
    let results = vec![
        MultiResult::Create(CreateResponse { path: "/a".to_owned() }),
        MultiResult::Delete,
        MultiResult::SetData(StatResponse::default()),
        MultiResult::Error(None),
    ];
    let records: [(u8, Box<dyn Encode>); 9] = [
        (0, Box::new(ConnectResponse::default())),
        (1, Box::new(ReplyHeader::default())),
        (2, Box::new(WatcherEvent::default())),
        (3, Box::new(CreateResponse { path: "/a".to_owned() })),
        (5, Box::new(StatResponse::default())),
        (6, Box::new(data)),
        (7, Box::new(GetChildrenResponse { children: names() })),
        (10, Box::new(MultiResponse { results })),
        (11, Box::new(GetEphemeralsResponse::default())),
    ];
    let encode = |(kind, record): &(u8, Box<dyn Encode>)| {
        [&[*kind], &frame::encode(&[&**record])[4..]].concat()
    };
    records.iter().map(encode).collect()
}
