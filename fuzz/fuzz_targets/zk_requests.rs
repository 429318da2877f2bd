//! A client's side of the ZooKeeper protocol: frames, the connect request, every request. Every
//! request that decodes must survive being encoded and decoded again.
//!
//! Input: the bytes of a connection.

#![no_main]

use basalt_fuzz::{block_on, ok, seed};
use basalt_zk::proto::{
    Acl, AddWatchRequest, AuthRequest, ConnectRequest, CreateRequest, CreateTtlRequest, Decode,
    Decoder, DeleteRequest, Encode, GetChildrenRequest, GetDataRequest, MultiOp, MultiRequest,
    Request, RequestHeader, SetDataRequest, SetWatches2Request, Xid, frame, path,
};
use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: seed(seeds), |input: &[u8]| {
    block_on(async {
        let mut frames = frame::FrameReader::new(input, frame::FRAME_BYTES_MAX);
        while let Ok(Some(frame)) = frames.next().await {
            decode(frame);
        }
    });
    decode(Bytes::copy_from_slice(input));
});

fn decode(message: Bytes) {
    let _ = ConnectRequest::from_message(message.clone());
    let mut decoder = Decoder::new(message);
    let Ok(header) = RequestHeader::decode(&mut decoder) else {
        return;
    };
    let Ok(request) = Request::decode(header.op, &mut decoder) else {
        return;
    };
    if let Request::Create(create) = &request
        && path::validate_create(&create.path, false).is_ok()
    {
        assert!(create.path == "/" || path::parent(&create.path).is_some());
    }
    let mut written = BytesMut::new();
    request.encode(&mut written);
    let again = ok(Request::decode(header.op, &mut Decoder::new(written.freeze())));
    assert_eq!(again, request);
}

fn seeds() -> Vec<Vec<u8>> {
    let path = || "/a/b".to_owned();
    let data = || Some(Bytes::from_static(b"data")).unwrap_or_default();
    let create = CreateRequest { path: path(), data: data().into(), acl: Acl::open(), flags: 3 };
    let ops = vec![
        MultiOp::Create(create.clone()),
        MultiOp::Delete(DeleteRequest { path: path(), version: 1 }),
        MultiOp::SetData(SetDataRequest { path: path(), data: data().into(), version: -1 }),
    ];
    let ttl = CreateTtlRequest {
        path: path(),
        data: data().into(),
        acl: Acl::open(),
        flags: 5,
        ..Default::default()
    };
    let requests = [
        Request::Create(create),
        Request::CreateTtl(ttl),
        Request::GetData(GetDataRequest { path: path(), watch: true }),
        Request::GetChildren2(GetChildrenRequest { path: path(), watch: true }),
        Request::Multi(MultiRequest { ops }),
        Request::SetWatches2(SetWatches2Request::default()),
        Request::AddWatch(AddWatchRequest { path: path(), ..Default::default() }),
        Request::Auth(AuthRequest::default()),
        Request::WhoAmI,
    ];
    let mut seeds = vec![frame::encode(&[&ConnectRequest::default()]).to_vec()];
    for request in &requests {
        let header = RequestHeader { xid: Xid(1), op: request.op_code().code() };
        seeds.push(frame::encode(&[&header, request]).to_vec());
        seeds.push(frame::encode(&[&header, request])[4..].to_vec());
    }
    seeds
}
