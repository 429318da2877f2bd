//! Tests round trips of every record, bytes as real peers send them, and hostile input.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

/// Checks that `record` is the same after it is written and read, and that nothing is left unread.
fn round_trip<T: Encode + Decode + PartialEq + std::fmt::Debug>(record: &T) {
    let wire = frame::encode(&[record]).slice(4..);
    let mut input = Decoder::new(wire);
    assert_eq!(T::decode(&mut input).as_ref(), Ok(record));
    assert!(input.is_empty(), "{record:?} left bytes unread");
}

fn text() -> impl Strategy<Value = String> {
    "[/a-zé]{0,12}"
}

fn texts() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(text(), 0..4)
}

fn bytes() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn data() -> impl Strategy<Value = Option<Bytes>> {
    prop::option::of(bytes())
}

fn error() -> impl Strategy<Value = Option<ErrorCode>> {
    any::<i32>().prop_map(ErrorCode::from_wire)
}

fn stat() -> impl Strategy<Value = Stat> {
    (any::<[i64; 6]>(), any::<[i32; 5]>()).prop_map(|(longs, ints)| Stat {
        czxid: Zxid(longs[0]),
        mzxid: Zxid(longs[1]),
        ctime_ms: longs[2],
        mtime_ms: longs[3],
        version: ints[0],
        cversion: ints[1],
        aversion: ints[2],
        ephemeral_owner: longs[4],
        data_length: ints[3],
        num_children: ints[4],
        pzxid: Zxid(longs[5]),
    })
}

fn acl() -> impl Strategy<Value = Vec<Acl>> {
    let entry = (any::<i32>(), text(), text()).prop_map(|(permissions, scheme, id)| Acl {
        permissions,
        scheme,
        id,
    });
    prop::collection::vec(entry, 0..3)
}

fn create() -> impl Strategy<Value = CreateRequest> {
    (text(), data(), acl(), any::<i32>()).prop_map(|(path, data, acl, flags)| CreateRequest {
        path,
        data,
        acl,
        flags,
    })
}

fn create_ttl() -> impl Strategy<Value = CreateTtlRequest> {
    (create(), any::<i64>()).prop_map(|(create, ttl_ms)| CreateTtlRequest {
        path: create.path,
        data: create.data,
        acl: create.acl,
        flags: create.flags,
        ttl_ms,
    })
}

fn set_data() -> impl Strategy<Value = SetDataRequest> {
    (text(), data(), any::<i32>()).prop_map(|(path, data, version)| SetDataRequest {
        path,
        data,
        version,
    })
}

fn multi() -> impl Strategy<Value = MultiRequest> {
    let op = prop_oneof![
        create().prop_map(MultiOp::Create),
        create().prop_map(MultiOp::Create2),
        create().prop_map(MultiOp::CreateContainer),
        create_ttl().prop_map(MultiOp::CreateTtl),
        (text(), any::<i32>())
            .prop_map(|(path, version)| MultiOp::Delete(DeleteRequest { path, version })),
        set_data().prop_map(MultiOp::SetData),
        (text(), any::<i32>())
            .prop_map(|(path, version)| MultiOp::Check(CheckVersionRequest { path, version })),
        (text(), any::<bool>())
            .prop_map(|(path, watch)| MultiOp::GetChildren(GetChildrenRequest { path, watch })),
        (text(), any::<bool>())
            .prop_map(|(path, watch)| MultiOp::GetData(GetDataRequest { path, watch })),
    ];
    prop::collection::vec(op, 0..6).prop_map(|ops| MultiRequest { ops })
}

fn multi_response() -> impl Strategy<Value = MultiResponse> {
    let result = prop_oneof![
        text().prop_map(|path| MultiResult::Create(CreateResponse { path })),
        (text(), stat())
            .prop_map(|(path, stat)| MultiResult::Create2(Create2Response { path, stat })),
        Just(MultiResult::Delete),
        Just(MultiResult::Check),
        stat().prop_map(|stat| MultiResult::SetData(StatResponse { stat })),
        texts().prop_map(|children| MultiResult::GetChildren(GetChildrenResponse { children })),
        (data(), stat())
            .prop_map(|(data, stat)| MultiResult::GetData(GetDataResponse { data, stat })),
        error().prop_map(MultiResult::Error),
    ];
    prop::collection::vec(result, 0..6).prop_map(|results| MultiResponse { results })
}

fn set_watches() -> impl Strategy<Value = SetWatches2Request> {
    (any::<i64>(), [texts(), texts(), texts(), texts(), texts()]).prop_map(
        |(zxid, [data, exist, child, persistent, persistent_recursive])| SetWatches2Request {
            relative_zxid: Zxid(zxid),
            data,
            exist,
            child,
            persistent,
            persistent_recursive,
        },
    )
}

/// Requests that name a path and one number or flag.
fn small_request() -> impl Strategy<Value = Request> {
    (text(), any::<i32>(), any::<bool>(), 0..14).prop_map(|(path, number, watch, kind)| {
        let version = number;
        match kind {
            0 => Request::Delete(DeleteRequest { path, version }),
            1 => Request::Exists(ExistsRequest { path, watch }),
            2 => Request::GetData(GetDataRequest { path, watch }),
            3 => Request::GetAcl(GetAclRequest { path }),
            4 => Request::GetChildren(GetChildrenRequest { path, watch }),
            5 => Request::GetChildren2(GetChildrenRequest { path, watch }),
            6 => Request::Sync(SyncRequest { path }),
            7 => Request::Check(CheckVersionRequest { path, version }),
            8 => Request::AddWatch(AddWatchRequest { path, mode: number }),
            9 => Request::CheckWatches(RemoveWatchesRequest { path, kind: number }),
            10 => Request::RemoveWatches(RemoveWatchesRequest { path, kind: number }),
            11 => Request::GetEphemerals(GetEphemeralsRequest { prefix: path }),
            12 => Request::GetAllChildrenNumber(GetAllChildrenNumberRequest { path }),
            _ => Request::WhoAmI,
        }
    })
}

fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        4 => small_request(),
        1 => create().prop_map(Request::Create),
        1 => create().prop_map(Request::Create2),
        1 => create().prop_map(Request::CreateContainer),
        1 => create_ttl().prop_map(Request::CreateTtl),
        1 => set_data().prop_map(Request::SetData),
        1 => (text(), acl(), any::<i32>()).prop_map(|(path, acl, version)| {
            Request::SetAcl(SetAclRequest { path, acl, version })
        }),
        1 => multi().prop_map(Request::Multi),
        1 => multi().prop_map(Request::MultiRead),
        1 => set_watches().prop_map(Request::SetWatches2),
        1 => set_watches().prop_map(|batch| Request::SetWatches(SetWatchesRequest {
            relative_zxid: batch.relative_zxid,
            data: batch.data,
            exist: batch.exist,
            child: batch.child,
        })),
        1 => (any::<i32>(), text(), bytes()).prop_map(|(kind, scheme, auth)| {
            Request::Auth(AuthRequest { kind, scheme, auth })
        }),
        1 => Just(Request::Ping),
        1 => Just(Request::CloseSession),
    ]
}

proptest! {
    #[test]
    fn every_request_survives_the_wire(request in request()) {
        let wire = frame::encode(&[&request]).slice(4..);
        let mut input = Decoder::new(wire);
        prop_assert_eq!(Request::decode(request.op_code().code(), &mut input), Ok(request));
        prop_assert!(input.is_empty());
    }

    #[test]
    fn a_request_cut_short_is_refused(request in request(), cut in any::<prop::sample::Index>()) {
        let wire = frame::encode(&[&request]).slice(4..);
        prop_assume!(!wire.is_empty());
        let mut input = Decoder::new(wire.slice(..cut.index(wire.len())));
        prop_assert!(Request::decode(request.op_code().code(), &mut input).is_err());
    }

    #[test]
    fn random_bytes_never_make_a_decoder_panic(
        bytes in prop::collection::vec(prop_oneof![Just(0), Just(0xff), any::<u8>()], 0..200),
    ) {
        let bytes = Bytes::from(bytes);
        for op in OpCode::ALL {
            let _ = Request::decode(op.code(), &mut Decoder::new(bytes.clone()));
        }
        let _ = ConnectRequest::from_message(bytes.clone());
        let _ = ConnectResponse::from_message(bytes.clone());
        let _ = ReplyHeader::from_message(bytes.clone());
        let _ = MultiResponse::from_message(bytes.clone());
        let _ = GetChildren2Response::from_message(bytes.clone());
        let _ = GetAclResponse::from_message(bytes.clone());
        let _ = WhoAmIResponse::from_message(bytes.clone());
        let _ = WatcherEvent::from_message(bytes);
    }

    #[test]
    fn the_first_messages_survive_the_wire(
        numbers in any::<[i64; 2]>(),
        ints in any::<[i32; 2]>(),
        password in bytes(),
        read_only in any::<Option<bool>>(),
    ) {
        round_trip(&ConnectRequest {
            protocol_version: ints[0],
            last_zxid_seen: Zxid(numbers[0]),
            timeout_ms: ints[1],
            session_id: SessionId(numbers[1]),
            password: password.clone(),
            read_only,
        });
        round_trip(&ConnectResponse {
            protocol_version: ints[0],
            timeout_ms: ints[1],
            session_id: SessionId(numbers[1]),
            password,
            read_only,
        });
    }

    #[test]
    fn every_reply_survives_the_wire(
        (path, names, data) in (text(), texts(), data()),
        (stat, acl, error) in (stat(), acl(), error()),
        (number, long) in any::<(i32, i64)>(),
        multi in multi_response(),
    ) {
        round_trip(&RequestHeader { xid: Xid(number), op: number });
        round_trip(&ReplyHeader { xid: Xid(number), zxid: Zxid(long), error });
        round_trip(&CreateResponse { path: path.clone() });
        round_trip(&Create2Response { path: path.clone(), stat });
        round_trip(&StatResponse { stat });
        round_trip(&GetDataResponse { data, stat });
        round_trip(&GetAclResponse { acl, stat });
        round_trip(&GetChildrenResponse { children: names.clone() });
        round_trip(&GetChildren2Response { children: names.clone(), stat });
        round_trip(&GetAllChildrenNumberResponse { total_number: number });
        round_trip(&GetEphemeralsResponse { paths: names });
        round_trip(&SyncResponse { path: path.clone() });
        round_trip(&AddWatchResponse { error: number });
        round_trip(&WatcherEvent { kind: number, state: number, path: path.clone() });
        round_trip(&WhoAmIResponse {
            clients: vec![ClientInfo { scheme: path.clone(), user: path }],
        });
        round_trip(&multi);
    }
}

#[test]
fn codes_and_numbers_belong_together() {
    for op in OpCode::ALL {
        assert_eq!(OpCode::from_wire(op.code()), Some(*op));
    }
    for error in ErrorCode::ALL {
        assert_eq!(ErrorCode::from_wire(error.code()), Some(*error));
    }
    for mode in CreateMode::ALL {
        assert_eq!(CreateMode::from_wire(mode.flags()), Some(*mode));
    }
    assert_eq!(ErrorCode::from_wire(0), None);
    assert_eq!(ErrorCode::from_wire(-999), Some(ErrorCode::Other(-999)));
    assert_eq!(OpCode::from_wire(10), None);
    assert_eq!(CreateMode::from_wire(7), None);
}

#[test]
fn a_connect_request_of_an_old_client_has_no_last_byte() {
    let mut old = ConnectRequest {
        password: Bytes::from_static(&[7; PASSWORD_BYTES]),
        ..ConnectRequest::default()
    };
    let wire = frame::encode(&[&old]);
    assert_eq!(wire.len(), 4 + 44);
    assert_eq!(ConnectRequest::from_message(wire.slice(4..)), Ok(old.clone()));
    old.read_only = Some(true);
    assert_eq!(frame::encode(&[&old]).len(), 4 + 45);
}

/// The frame in a hexadecimal dump.
fn dump(hexadecimal: &str) -> Bytes {
    let digits: Vec<u8> = hexadecimal.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pairs = digits.chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// Checks that `records` encode to the frame in `hexadecimal`, which the Java client or server
/// 3.8.6 has sent.
fn is_on_the_wire(records: &[&dyn Encode], hexadecimal: &str) {
    assert_eq!(frame::encode(records), dump(hexadecimal));
}

fn request_header(xid: i32, op: OpCode) -> RequestHeader {
    RequestHeader { xid: Xid(xid), op: op.code() }
}

fn reply_header(xid: i32, zxid: i64, error: Option<ErrorCode>) -> ReplyHeader {
    ReplyHeader { xid: Xid(xid), zxid: Zxid(zxid), error }
}

#[test]
fn the_first_messages_have_the_bytes_of_java() {
    let request = ConnectRequest {
        timeout_ms: 4000,
        password: Bytes::from_static(&[0; PASSWORD_BYTES]),
        read_only: Some(false),
        ..ConnectRequest::default()
    };
    is_on_the_wire(
        &[&request],
        "0000002d 00000000 0000000000000000 00000fa0 0000000000000000
         00000010 00000000000000000000000000000000 00",
    );
    let response = ConnectResponse {
        timeout_ms: 4000,
        session_id: SessionId(0x0100_0024_503b_0000),
        password: dump("27073c0c2847855add078e39b12fe897"),
        read_only: Some(false),
        ..ConnectResponse::default()
    };
    is_on_the_wire(
        &[&response],
        "00000025 00000000 00000fa0 01000024503b0000
         00000010 27073c0c2847855add078e39b12fe897 00",
    );
}

#[test]
fn a_create_has_the_bytes_of_java() {
    let request = CreateRequest {
        path: "/cap".to_owned(),
        data: None,
        acl: Acl::open(),
        flags: CreateMode::Persistent.flags(),
    };
    is_on_the_wire(
        &[&request_header(3, OpCode::Create), &request],
        "00000033 00000003 00000001 00000004 2f636170 ffffffff 00000001 0000001f
         00000005 776f726c64 00000006 616e796f6e65 00000000",
    );
    let response = CreateResponse { path: "/cap".to_owned() };
    is_on_the_wire(
        &[&reply_header(3, 4, None), &response],
        "00000018 00000003 0000000000000004 00000000 00000004 2f636170",
    );
}

#[test]
fn a_persistent_watch_and_its_event_have_the_bytes_of_java() {
    let request =
        AddWatchRequest { path: "/cap".to_owned(), mode: AddWatchMode::PersistentRecursive.code() };
    is_on_the_wire(
        &[&request_header(4, OpCode::AddWatch), &request],
        "00000014 00000004 0000006a 00000004 2f636170 00000001",
    );
    is_on_the_wire(
        &[&reply_header(4, 4, None), &AddWatchResponse::default()],
        "00000014 00000004 0000000000000004 00000000 00000000",
    );
    let event = WatcherEvent::of(EventType::NodeDeleted, "/cap/b");
    is_on_the_wire(
        &[&reply_header(Xid::EVENT.0, -1, None), &event],
        "00000022 ffffffff ffffffffffffffff 00000000 00000002 00000003 00000006 2f6361702f62",
    );
}

#[test]
fn a_created_ephemeral_node_has_the_bytes_of_java() {
    let response = Create2Response {
        path: "/cap/e-0000000000".to_owned(),
        stat: Stat {
            czxid: Zxid(5),
            mzxid: Zxid(5),
            ctime_ms: 0x01a2_00a0_a804,
            mtime_ms: 0x01a2_00a0_a804,
            ephemeral_owner: 0x0100_0024_503b_0000,
            data_length: 2,
            pzxid: Zxid(5),
            ..Stat::default()
        },
    };
    is_on_the_wire(
        &[&reply_header(5, 5, None), &response],
        "00000069 00000005 0000000000000005 00000000
         00000011 2f6361702f652d30303030303030303030 0000000000000005 0000000000000005
         000001a200a0a804 000001a200a0a804 00000000 00000000 00000000 01000024503b0000
         00000002 00000000 0000000000000005",
    );
}

#[test]
fn a_refused_multi_has_the_bytes_of_java() {
    let path = || "/cap/b".to_owned();
    let request = MultiRequest {
        ops: vec![
            MultiOp::Create(CreateRequest {
                path: path(),
                data: Some(Bytes::new()),
                acl: Acl::open(),
                flags: 0,
            }),
            MultiOp::Check(CheckVersionRequest { path: "/cap".to_owned(), version: 9 }),
            MultiOp::Delete(DeleteRequest { path: path(), version: VERSION_ANY }),
            MultiOp::SetData(SetDataRequest {
                path: "/cap".to_owned(),
                data: Some(Bytes::from_static(&[7])),
                version: VERSION_ANY,
            }),
        ],
    };
    is_on_the_wire(
        &[&request_header(6, OpCode::Multi), &request],
        "0000008d 00000006 0000000e 00000001 00 ffffffff 00000006 2f6361702f62 00000000
         00000001 0000001f 00000005 776f726c64 00000006 616e796f6e65 00000000
         0000000d 00 ffffffff 00000004 2f636170 00000009
         00000002 00 ffffffff 00000006 2f6361702f62 ffffffff
         00000005 00 ffffffff 00000004 2f636170 00000001 07 ffffffff ffffffff 01 ffffffff",
    );
    let response = MultiResponse {
        results: vec![
            MultiResult::Error(None),
            MultiResult::Error(Some(ErrorCode::BadVersion)),
            MultiResult::Error(Some(ErrorCode::RuntimeInconsistency)),
            MultiResult::Error(Some(ErrorCode::RuntimeInconsistency)),
        ],
    };
    is_on_the_wire(
        &[&reply_header(6, 6, None), &response],
        "0000004d 00000006 0000000000000006 00000000
         ffffffff 00 00000000 00000000 ffffffff 00 ffffff99 ffffff99
         ffffffff 00 fffffffe fffffffe ffffffff 00 fffffffe fffffffe ffffffff 01 ffffffff",
    );
}

#[test]
fn an_error_names_the_field_and_what_is_wrong() {
    let cut = GetDataRequest::from_message(Bytes::from_static(b"\0\0\0\x02/a"));
    assert_eq!(
        cut.unwrap_err().to_string(),
        "GetDataRequest.watch: 1 bytes are needed, but 0 are left"
    );
    let lying = GetDataRequest::from_message(Bytes::from_static(b"\x7f\xff\xff\xff/a"));
    assert_eq!(
        lying.unwrap_err().to_string(),
        "GetDataRequest.path: length 2147483647 is not between -1 and the 2 bytes that are left"
    );
    let null = GetDataRequest::from_message(Bytes::from_static(b"\xff\xff\xff\xff\0"));
    assert_eq!(null.unwrap_err().problem, Problem::NullString);
    let unknown = Request::decode(77, &mut Decoder::new(Bytes::new()));
    assert_eq!(unknown.unwrap_err().problem, Problem::UnknownOp { code: 77 });
}
