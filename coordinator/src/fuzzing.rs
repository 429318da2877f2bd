//! Entry points for the fuzz targets: a member's decoders of data from its disk and its peers.
//! Compiled only with `--cfg fuzzing`.

use std::path::Path;

use basalt_fs::SharedFileSystem;
use bytes::{Bytes, BytesMut};
use prost::Message;

use crate::ensemble::Ensemble;
use crate::raft::{SnapshotStore, log};
use crate::tree::{Command, State};
use crate::wire::v1;

/// Opens the log in `folder`, as a member does when it starts.
///
/// # Errors
/// The same as for a member.
pub async fn open_log(files: SharedFileSystem, folder: &Path) -> Result<(), crate::LogError> {
    log::open(files, folder, 1_700_000_000_000).await.map(drop)
}

/// Reads the newest snapshot in `folder`, and the state in it, if there is one.
pub async fn read_snapshot(files: SharedFileSystem, folder: &Path) {
    if let Ok(Some(snapshot)) =
        SnapshotStore::new(files, folder, Ensemble::new(None, false, false)).newest().await
    {
        decode_state(snapshot.snapshot);
    }
}

/// Decodes a state, and checks that it is the same after it is encoded and decoded again. Returns
/// whether `bytes` are a valid state.
pub fn decode_state(bytes: Bytes) -> bool {
    let Ok(state) = State::decode(bytes) else {
        return false;
    };
    let mut written = BytesMut::new();
    state.encode(&mut written).unwrap_or_else(|error| panic!("{error}"));
    let again = State::decode(written.clone().freeze()).unwrap_or_else(|error| panic!("{error}"));
    let mut rewritten = BytesMut::new();
    again.encode(&mut rewritten).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(written, rewritten);
    true
}

/// Decodes commands, each preceded by its length, and applies them to one state.
pub fn apply_commands(mut bytes: Bytes) {
    let mut state = State::new();
    for index in 1.. {
        let Ok(message) = v1::Command::decode_length_delimited(&mut bytes) else {
            break;
        };
        if let Ok(command) = Command::try_from(message) {
            state.apply(index, 1, &command);
        }
        if bytes.is_empty() {
            break;
        }
    }
    let mut written = BytesMut::new();
    state.encode(&mut written).unwrap_or_else(|error| panic!("{error}"));
    assert!(decode_state(written.freeze()), "what was applied can be kept");
}

/// Sample commands for the fuzzer to start from, each preceded by its length.
pub fn sample_commands() -> Vec<Bytes> {
    use crate::tree::{Change, Operation, Write};
    use basalt_zk::proto::{Acl, SessionId};
    let session = SessionId(7);
    let create = |path: &str, ephemeral, sequential| Operation::Create {
        path: path.to_owned(),
        data: Some(Bytes::from_static(b"data")),
        acl: Acl::open(),
        ephemeral,
        sequential,
    };
    let write =
        |operations| Change::Write(Write { session, attachment: 1, operations, multi: true });
    let path = || "/a".to_owned();
    let changes = [
        Change::SetSecret([1; crate::tree::SECRET_BYTES]),
        Change::CreateSession { session, timeout_ms: 1000, attachment: 1 },
        write(vec![create("/a", false, false), create("/a/b", true, false)]),
        write(vec![create("/a/s-", true, true), Operation::Check { path: path(), version: -1 }]),
        write(vec![Operation::SetData { path: path(), data: None, version: 0 }]),
        write(vec![Operation::SetAcl { path: path(), acl: Acl::open(), version: 0 }]),
        write(vec![Operation::Delete { path: "/a/b".to_owned(), version: -1 }]),
        Change::AttachSession { session, timeout_ms: 1000, attachment: 2 },
        Change::ExpireSession { session, term: 1 },
        Change::CloseSession { session, attachment: 2 },
    ];
    let encoded = changes.into_iter().map(|change| {
        let command = Command { origin: None, time_ms: 5, change };
        v1::Command::from(command).encode_length_delimited_to_vec().into()
    });
    encoded.collect()
}

/// A sample state for the fuzzer to start from: the result of the first sample commands.
pub fn sample_state() -> Bytes {
    let mut state = State::new();
    for (index, bytes) in (1..).zip(sample_commands().into_iter().take(6)) {
        if let Ok(message) = v1::Command::decode_length_delimited(bytes)
            && let Ok(command) = Command::try_from(message)
        {
            state.apply(index, 1, &command);
        }
    }
    let mut written = BytesMut::new();
    state.encode(&mut written).unwrap_or_else(|error| panic!("{error}"));
    written.freeze()
}

/// Sample records of a segment for the fuzzer to start from, without their frame.
pub fn sample_log_records() -> Vec<Bytes> {
    use v1::log_record::Record;
    let id = |index| Some(v1::LogId { term: 1, index });
    let command = sample_commands().into_iter().nth(2);
    let command = command.and_then(|bytes| v1::Command::decode_length_delimited(bytes).ok());
    let vote = v1::Ballot { term: 1, voted_for: 1, committed: true };
    let membership = v1::Membership {
        configs: vec![v1::VoterSet { members: vec![1, 2, 3] }],
        members: vec![1, 2, 3],
    };
    let records = [
        Record::Header(v1::SegmentHeader { number: 1, life: 3, ..Default::default() }),
        Record::Vote(vote),
        Record::Entry(v1::Entry {
            id: id(0),
            payload: Some(v1::entry::Payload::Membership(membership)),
        }),
        Record::Entry(v1::Entry { id: id(1), payload: command.map(v1::entry::Payload::Command) }),
        Record::Entry(v1::Entry { id: id(2), payload: None }),
        Record::Truncation(v1::Truncation { keep: id(1) }),
        Record::Purge(v1::LogId { term: 1, index: 0 }),
    ];
    let encode =
        |record| v1::LogRecord { record: Some(record) }.encode_length_delimited_to_vec().into();
    records.into_iter().map(encode).collect()
}
