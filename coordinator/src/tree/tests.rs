//! Tests the state with examples, and against a naive model.

use std::collections::{BTreeMap, BTreeSet};

use basalt_zk::proto::{Acl, ErrorCode, EventType, SessionId, Stat, VERSION_ANY, Zxid};
use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::*;

const ATTACHMENT: u64 = 5;

fn command(change: Change) -> Command {
    Command { origin: None, time_ms: 1000, change }
}

/// A state with a session, and the index of the last command.
struct Fixture {
    state: State,
    index: u64,
}

impl Fixture {
    fn new() -> Self {
        let mut fixture = Self { state: State::new(), index: 0 };
        fixture.open(1);
        fixture
    }

    fn open(&mut self, session: i64) {
        let applied = self.apply(Change::CreateSession {
            session: SessionId(session),
            timeout_ms: 1500,
            attachment: ATTACHMENT,
        });
        assert_eq!(applied.verdict, Some(Verdict::Done(Vec::new())));
    }

    fn apply(&mut self, change: Change) -> Applied {
        self.index += 1;
        self.state.apply(self.index, 1, &command(change))
    }

    fn write(&mut self, session: i64, operations: Vec<Operation>) -> Applied {
        self.apply(Change::Write(Write {
            session: SessionId(session),
            attachment: ATTACHMENT,
            multi: operations.len() != 1,
            operations,
        }))
    }

    fn one(&mut self, operation: Operation) -> Result<OperationOutcome, ErrorCode> {
        match self.write(1, vec![operation]).verdict {
            Some(Verdict::Done(mut outcomes)) => Ok(outcomes.remove(0)),
            Some(Verdict::Failed { error, .. } | Verdict::Refused(error)) => Err(error),
            None => panic!("no verdict"),
        }
    }

    fn stat(&self, path: &str) -> Stat {
        self.state.node(path).unwrap().stat()
    }
}

fn create(path: &str) -> Operation {
    create_as(path, false, false)
}

fn create_as(path: &str, ephemeral: bool, sequential: bool) -> Operation {
    Operation::Create {
        path: path.to_owned(),
        data: Some(Bytes::from_static(b"data")),
        acl: Acl::open(),
        ephemeral,
        sequential,
    }
}

fn delete(path: &str, version: i32) -> Operation {
    Operation::Delete { path: path.to_owned(), version }
}

fn set(path: &str, version: i32) -> Operation {
    Operation::SetData { path: path.to_owned(), data: None, version }
}

fn check(path: &str, version: i32) -> Operation {
    Operation::Check { path: path.to_owned(), version }
}

fn events(applied: &Applied) -> Vec<(EventType, &str)> {
    let events = applied.events.iter();
    events.map(|event| (event.kind, event.path.as_str())).collect()
}

#[test]
fn a_stat_reports_what_happened() {
    let mut fixture = Fixture::new();
    fixture.one(create("/a")).unwrap();
    let created = fixture.index;
    fixture.one(create("/a/b")).unwrap();
    fixture.one(delete("/a/b", VERSION_ANY)).unwrap();
    let child_gone = fixture.index;
    fixture.one(set("/a", 0)).unwrap();
    let zxid = |index: u64| Zxid(i64::try_from(index).unwrap());
    let expected = Stat {
        czxid: zxid(created),
        mzxid: zxid(fixture.index),
        ctime_ms: 1000,
        mtime_ms: 1000,
        version: 1,
        cversion: 2,
        aversion: 0,
        ephemeral_owner: 0,
        data_length: 0,
        num_children: 0,
        pzxid: zxid(child_gone),
    };
    assert_eq!(fixture.stat("/a"), expected);
}

#[test]
fn sequential_names_count_births_and_not_deaths() {
    let mut fixture = Fixture::new();
    fixture.one(create("/q")).unwrap();
    let name = |outcome: Result<OperationOutcome, _>| match outcome.unwrap() {
        OperationOutcome::Created { path, .. } => path,
        other => panic!("{other:?}"),
    };
    assert_eq!(name(fixture.one(create_as("/q/n-", false, true))), "/q/n-0000000000");
    fixture.one(delete("/q/n-0000000000", 0)).unwrap();
    fixture.one(create("/q/other")).unwrap();
    assert_eq!(name(fixture.one(create_as("/q/", true, true))), "/q/0000000002");
}

#[test]
fn each_refusal_has_its_code() {
    let mut fixture = Fixture::new();
    fixture.one(create_as("/e", true, false)).unwrap();
    fixture.one(create("/a")).unwrap();
    fixture.one(create("/a/b")).unwrap();
    let cases = [
        (create("/a"), ErrorCode::NodeExists),
        (create("/"), ErrorCode::NodeExists),
        (create("/x/y"), ErrorCode::NoNode),
        (create("/e/child"), ErrorCode::NoChildrenForEphemerals),
        (create("no-slash"), ErrorCode::BadArguments),
        (create("/a/"), ErrorCode::BadArguments),
        (delete("/x", VERSION_ANY), ErrorCode::NoNode),
        (delete("/a", VERSION_ANY), ErrorCode::NotEmpty),
        (delete("/a/b", 1), ErrorCode::BadVersion),
        (delete("/", VERSION_ANY), ErrorCode::BadArguments),
        (delete("/zookeeper/quota", VERSION_ANY), ErrorCode::BadArguments),
        (set("/x", VERSION_ANY), ErrorCode::NoNode),
        (set("/a", 7), ErrorCode::BadVersion),
        (check("/a", 7), ErrorCode::BadVersion),
        (check("/x", VERSION_ANY), ErrorCode::NoNode),
    ];
    for (operation, error) in cases {
        let before = fixture.state.clone();
        assert_eq!(fixture.one(operation.clone()), Err(error), "{operation:?}");
        assert_eq!(fixture.state, before, "{operation:?} left a trace");
    }
}

#[test]
fn a_multi_that_fails_leaves_no_trace() {
    let mut fixture = Fixture::new();
    fixture.one(create("/a")).unwrap();
    fixture.one(create_as("/a/e", true, false)).unwrap();
    let before = fixture.state.clone();
    let applied = fixture.write(
        1,
        vec![
            create_as("/a/s", true, true),
            set("/a", 0),
            delete("/a/e", 0),
            create("/a/e"),
            Operation::SetAcl { path: "/a".to_owned(), acl: Acl::open(), version: 0 },
            check("/missing", 0),
            create("/never"),
        ],
    );
    let expected = Verdict::Failed { at: 5, error: ErrorCode::NoNode };
    assert_eq!(applied.verdict, Some(expected));
    assert!(applied.events.is_empty());
    assert_eq!(fixture.state, before);
}

#[test]
fn a_multi_sees_its_own_writes() {
    let mut fixture = Fixture::new();
    let applied =
        fixture.write(1, vec![create("/a"), create("/a/b"), set("/a", 0), check("/a", 1)]);
    assert!(matches!(applied.verdict, Some(Verdict::Done(outcomes)) if outcomes.len() == 4));
    assert_eq!(fixture.stat("/a").num_children, 1);
}

#[test]
fn the_end_of_a_session_deletes_what_it_owns() {
    let mut fixture = Fixture::new();
    fixture.open(2);
    fixture.one(create("/a")).unwrap();
    fixture.one(create_as("/a/mine", true, false)).unwrap();
    fixture.write(2, vec![create_as("/a/yours", true, false)]);
    let close = Change::CloseSession { session: SessionId(1), attachment: ATTACHMENT };
    let applied = fixture.apply(close);
    assert_eq!(
        events(&applied),
        [(EventType::NodeDeleted, "/a/mine"), (EventType::NodeChildrenChanged, "/a")]
    );
    assert_eq!(fixture.one(create("/b")), Err(ErrorCode::SessionExpired));
    assert!(fixture.state.node("/a/yours").is_some());
}

#[test]
fn a_session_that_has_moved_is_refused_on_its_old_connection() {
    let mut fixture = Fixture::new();
    fixture.apply(Change::AttachSession { session: SessionId(1), timeout_ms: 1500, attachment: 6 });
    assert_eq!(fixture.one(create("/a")), Err(ErrorCode::SessionMoved));
}

#[test]
fn an_expiry_holds_only_in_its_term() {
    let mut fixture = Fixture::new();
    let expire = |term| Change::ExpireSession { session: SessionId(1), term };
    assert_eq!(fixture.apply(expire(2)).session, None);
    let closed = SessionChange::Closed { session: SessionId(1) };
    assert_eq!(fixture.apply(expire(1)).session, Some(closed));
}

#[test]
fn a_command_is_applied_once_and_in_its_order() {
    let mut state = State::new();
    let mut index = 0;
    let mut apply = |life, number| {
        index += 1;
        let command = Command {
            origin: Some(Origin { member: 1, life, number }),
            time_ms: 0,
            change: Change::SetSecret([1; SECRET_BYTES]),
        };
        state.apply(index, 1, &command).verdict.is_some()
    };
    assert!(!apply(1, 2), "the first is missing");
    assert!(apply(1, 1));
    assert!(!apply(1, 1), "a repetition");
    assert!(!apply(1, 3), "a gap");
    assert!(apply(1, 2));
    assert!(!apply(2, 2), "a new life begins with 1");
    assert!(apply(2, 1));
    assert!(!apply(1, 3), "the old life is over");
    assert!(apply(2, 2));
}

/// An operation on one of a few paths, for the property tests.
fn any_operation() -> impl Strategy<Value = Operation> {
    let path = prop::sample::select(vec!["/a", "/b", "/a/x", "/a/y", "/a/x/1", "/b/z"]);
    let version = prop::sample::select(vec![VERSION_ANY, 0, 1]);
    (path, version, 0..6, any::<bool>()).prop_map(|(path, version, kind, flag)| match kind {
        0 | 1 => create_as(path, flag, false),
        2 => create_as(path, flag, true),
        3 => delete(path, version),
        4 => set(path, version),
        _ => check(path, version),
    })
}

/// The tree as a plain map from path to (version, owner), one operation at a time on a copy.
#[derive(Clone, Default)]
struct Model {
    nodes: BTreeMap<String, (i32, i64)>,
    births: BTreeMap<String, u32>,
}

impl Model {
    fn multi(&mut self, operations: &[Operation], session: i64) -> bool {
        let mut copy = self.clone();
        let done = operations.iter().all(|one| copy.one(one, session).is_some());
        if done {
            *self = copy;
        }
        done
    }

    fn one(&mut self, operation: &Operation, session: i64) -> Option<()> {
        match operation {
            Operation::Create { path, ephemeral, sequential, .. } => {
                let (parent, _) = path.rsplit_once('/')?;
                if !parent.is_empty() && self.nodes.get(parent)?.1 != 0 {
                    return None;
                }
                let births = self.births.entry(parent.to_owned()).or_default();
                let full = match sequential {
                    true => format!("{path}{births:010}"),
                    false => path.clone(),
                };
                *births += 1;
                if self.nodes.contains_key(&full) {
                    return None;
                }
                self.births.insert(full.clone(), 0);
                let owner = if *ephemeral { session } else { 0 };
                self.nodes.insert(full, (0, owner));
                Some(())
            }
            Operation::Delete { path, version } => {
                self.at(path, *version)?;
                let below = format!("{path}/");
                if self.nodes.keys().any(|other| other.starts_with(&below)) {
                    return None;
                }
                self.nodes.remove(path);
                Some(())
            }
            Operation::SetData { path, version, .. } => {
                self.at(path, *version)?.0 += 1;
                Some(())
            }
            Operation::Check { path, version } => self.at(path, *version).map(|_| ()),
            Operation::SetAcl { .. } => None,
        }
    }

    fn at(&mut self, path: &str, version: i32) -> Option<&mut (i32, i64)> {
        let node = self.nodes.get_mut(path)?;
        (version == VERSION_ANY || version == node.0).then_some(node)
    }
}

fn as_model(state: &State) -> BTreeMap<String, (i32, i64)> {
    let nodes = state.nodes.iter();
    nodes
        .filter(|(path, _)| &***path != "/" && !path.starts_with("/zookeeper"))
        .map(|(path, node)| (path.to_string(), (node.version, node.owner.0)))
        .collect()
}

fn assert_consistent(state: &State) {
    let mut owned: BTreeMap<SessionId, BTreeSet<std::sync::Arc<str>>> = BTreeMap::new();
    for (path, node) in &state.nodes {
        for name in &node.family.names {
            let child = format!("{}/{name}", if &**path == "/" { "" } else { path });
            assert!(state.node(&child).is_some(), "{child} is missing");
        }
        if node.is_ephemeral() {
            assert!(node.family.names.is_empty());
            owned.entry(node.owner).or_default().insert(path.clone());
        }
    }
    let children: usize = state.nodes.values().map(|node| node.family.names.len()).sum();
    assert_eq!(children, state.nodes.len() - 1, "every node but the root has its parent");
    assert_eq!(owned, state.ephemerals);
    assert_eq!(state.digest(), state.digest_from_scratch());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_tree_is_the_model(
        multis in prop::collection::vec(
            (prop::collection::vec(any_operation(), 1..5), 1..3_i64, 0..12),
            1..40,
        )
    ) {
        let mut fixture = Fixture::new();
        fixture.open(2);
        let mut model = Model::default();
        for (operations, session, chance) in multis {
            if chance == 0 {
                // The session ends, and is opened again.
                fixture.apply(Change::CloseSession {
                    session: SessionId(session),
                    attachment: ATTACHMENT,
                });
                fixture.open(session);
                model.nodes.retain(|_, (_, owner)| *owner != session);
            } else {
                let expected = model.multi(&operations, session);
                let applied = fixture.write(session, operations);
                prop_assert_eq!(matches!(applied.verdict, Some(Verdict::Done(_))), expected);
                prop_assert_eq!(applied.events.is_empty() || expected, true);
            }
            prop_assert_eq!(as_model(&fixture.state), model.nodes.clone());
            assert_consistent(&fixture.state);
        }
        let mut encoded = BytesMut::new();
        fixture.state.encode(&mut encoded).unwrap();
        prop_assert_eq!(State::decode(encoded.freeze()).unwrap(), fixture.state);
    }

    #[test]
    fn no_bytes_break_the_decoder(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _refused = State::decode(bytes.into());
    }
}
