//! Operations on nodes. Each is atomic, and a multi that fails undoes them.

use std::sync::Arc;

use basalt_zk::proto::{Acl, ErrorCode, EventType, SessionId, Stat, VERSION_ANY, Zxid, path};
use bytes::Bytes;

use crate::tree::apply::Event;
use crate::tree::command::Operation;
use crate::tree::node::{Family, Node};
use crate::tree::state::{FIXED_NODES, State, split};

/// The outcome of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OperationOutcome {
    /// Created the node at `path`, which includes the number of a sequential node.
    Created { path: String, stat: Stat },
    /// Deleted the node.
    Deleted,
    /// Replaced its data or its access list.
    Changed(Stat),
    /// Found the required version.
    Checked,
}

/// Who writes, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) session: SessionId,
    pub(super) zxid: Zxid,
    pub(super) time_ms: i64,
}

/// How to undo an operation.
enum Undo {
    Create { path: Arc<str>, parent_zxid: Zxid },
    Delete { path: Arc<str>, node: Arc<Node>, parent_zxid: Zxid },
    SetData { path: String, data: Option<Bytes>, version: i32, zxid: Zxid, modified_ms: i64 },
    SetAcl { path: String, acl: Arc<[Acl]>, version: i32 },
    Nothing,
}

/// An operation that failed: which one, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) at: usize,
    pub(super) error: ErrorCode,
}

type OperationResult = Result<(OperationOutcome, Undo), ErrorCode>;

impl State {
    /// Runs all of `operations` or none. Appends the resulting events to `events`.
    pub(super) fn run(
        &mut self,
        operations: &[Operation],
        moment: Moment,
        events: &mut Vec<Event>,
    ) -> Result<Vec<OperationOutcome>, Failure> {
        let before = events.len();
        let mut undos = Vec::with_capacity(operations.len());
        let mut outcomes = Vec::with_capacity(operations.len());
        for (at, operation) in operations.iter().enumerate() {
            match self.step(operation, moment, events) {
                Ok((outcome, undo)) => {
                    outcomes.push(outcome);
                    undos.push(undo);
                }
                Err(error) => {
                    events.truncate(before);
                    for undo in undos.into_iter().rev() {
                        self.undo(undo);
                    }
                    return Err(Failure { at, error });
                }
            }
        }
        Ok(outcomes)
    }

    fn step(
        &mut self,
        operation: &Operation,
        moment: Moment,
        events: &mut Vec<Event>,
    ) -> OperationResult {
        match operation {
            Operation::Create { .. } => self.create(operation, moment, events),
            Operation::Delete { path, version } => self.delete(path, *version, moment, events),
            Operation::SetData { path, data, version } => {
                self.set_data(path, data, *version, moment, events)
            }
            Operation::SetAcl { path, acl, version } => self.set_acl(path, acl, *version),
            Operation::Check { path, version } => {
                let node = self.node(path).ok_or(ErrorCode::NoNode)?;
                check_version(*version, node.version)?;
                Ok((OperationOutcome::Checked, Undo::Nothing))
            }
        }
    }

    fn create(
        &mut self,
        operation: &Operation,
        moment: Moment,
        events: &mut Vec<Event>,
    ) -> OperationResult {
        let Operation::Create { path: asked, data, acl, ephemeral, sequential } = operation else {
            return Err(ErrorCode::SystemError);
        };
        path::validate_create(asked, *sequential).map_err(|_| ErrorCode::BadArguments)?;
        if acl.is_empty() {
            return Err(ErrorCode::InvalidAcl);
        }
        if asked == "/" && !sequential {
            return Err(ErrorCode::NodeExists);
        }
        let parent_path = match asked.rsplit_once('/') {
            Some(("", _)) => "/",
            Some((parent, _)) => parent,
            None => return Err(ErrorCode::BadArguments),
        };
        let parent = self.node(parent_path).ok_or(ErrorCode::NoNode)?;
        let full = match sequential {
            true => format!("{asked}{:010}", parent.family.births),
            false => asked.clone(),
        };
        if self.nodes.contains_key(full.as_str()) {
            return Err(ErrorCode::NodeExists);
        }
        if parent.is_ephemeral() {
            return Err(ErrorCode::NoChildrenForEphemerals);
        }
        let node = Node {
            data: data.clone(),
            acl: acl.as_slice().into(),
            created_zxid: moment.zxid,
            modified_zxid: moment.zxid,
            created_ms: moment.time_ms,
            modified_ms: moment.time_ms,
            version: 0,
            acl_version: 0,
            owner: if *ephemeral { moment.session } else { SessionId::NONE },
            family: Family { zxid: moment.zxid, ..Family::default() },
        };
        let (stat, parent_zxid) = (node.stat(), parent.family.zxid);
        events.push(Event::new(EventType::NodeCreated, &full));
        events.push(Event::new(EventType::NodeChildrenChanged, parent_path));
        let key: Arc<str> = full.as_str().into();
        self.link(Arc::clone(&key), Arc::new(node), moment.zxid, 1);
        let undo = Undo::Create { path: key, parent_zxid };
        Ok((OperationOutcome::Created { path: full, stat }, undo))
    }

    pub(super) fn delete_ephemeral(&mut self, path: &str, moment: Moment, events: &mut Vec<Event>) {
        // An ephemeral node has no children and its version does not matter: this cannot fail.
        let deleted = self.delete(path, VERSION_ANY, moment, events);
        debug_assert!(deleted.is_ok(), "{path} is owned and cannot be deleted");
    }

    fn delete(
        &mut self,
        path: &str,
        version: i32,
        moment: Moment,
        events: &mut Vec<Event>,
    ) -> OperationResult {
        if FIXED_NODES.contains(&path) {
            return Err(ErrorCode::BadArguments);
        }
        let node = self.node(path).ok_or(ErrorCode::NoNode)?;
        check_version(version, node.version)?;
        if !node.family.names.is_empty() {
            return Err(ErrorCode::NotEmpty);
        }
        let (parent, _) = split(path).ok_or(ErrorCode::BadArguments)?;
        let parent_zxid = self.node(parent).map_or(Zxid(0), |parent| parent.family.zxid);
        events.push(Event::new(EventType::NodeDeleted, path));
        events.push(Event::new(EventType::NodeChildrenChanged, parent));
        match self.unlink(path, moment.zxid, 0) {
            Some((path, node)) => {
                let undo = Undo::Delete { path, node, parent_zxid };
                Ok((OperationOutcome::Deleted, undo))
            }
            None => Err(ErrorCode::NoNode),
        }
    }

    fn set_data(
        &mut self,
        path: &str,
        data: &Option<Bytes>,
        version: i32,
        moment: Moment,
        events: &mut Vec<Event>,
    ) -> OperationResult {
        if path == "/zookeeper/config" {
            // This node belongs to the ensemble, as in ZooKeeper, where only reconfig writes it.
            return Err(ErrorCode::NoAuth);
        }
        check_version(version, self.node(path).ok_or(ErrorCode::NoNode)?.version)?;
        let changed = self.change_node(path, |node| {
            let undo = Undo::SetData {
                path: path.to_owned(),
                data: std::mem::replace(&mut node.data, data.clone()),
                version: node.version,
                zxid: node.modified_zxid,
                modified_ms: node.modified_ms,
            };
            node.version = node.version.wrapping_add(1);
            node.modified_zxid = moment.zxid;
            node.modified_ms = moment.time_ms;
            (OperationOutcome::Changed(node.stat()), undo)
        });
        events.push(Event::new(EventType::NodeDataChanged, path));
        changed.ok_or(ErrorCode::NoNode)
    }

    fn set_acl(&mut self, path: &str, acl: &[Acl], version: i32) -> OperationResult {
        if acl.is_empty() {
            return Err(ErrorCode::InvalidAcl);
        }
        check_version(version, self.node(path).ok_or(ErrorCode::NoNode)?.acl_version)?;
        let changed = self.change_node(path, |node| {
            let undo = Undo::SetAcl {
                path: path.to_owned(),
                acl: std::mem::replace(&mut node.acl, acl.into()),
                version: node.acl_version,
            };
            node.acl_version = node.acl_version.wrapping_add(1);
            (OperationOutcome::Changed(node.stat()), undo)
        });
        changed.ok_or(ErrorCode::NoNode)
    }

    /// Inserts a node into the tree. Adds `births` to its parent's count.
    fn link(&mut self, path: Arc<str>, node: Arc<Node>, zxid: Zxid, births: i32) {
        if let Some((parent, name)) = split(&path) {
            self.change_node(parent, |parent| {
                parent.family.names.insert(name.into());
                parent.family.births = parent.family.births.wrapping_add(births);
                parent.family.zxid = zxid;
            });
        }
        if node.is_ephemeral() {
            self.ephemerals.entry(node.owner).or_default().insert(Arc::clone(&path));
        }
        self.insert_node(path, node);
    }

    /// Removes a node from the tree. Subtracts `births` from its parent's count.
    fn unlink(&mut self, path: &str, zxid: Zxid, births: i32) -> Option<(Arc<str>, Arc<Node>)> {
        let (path, node) = self.remove_node(path)?;
        if let Some((parent, name)) = split(&path) {
            self.change_node(parent, |parent| {
                parent.family.names.remove(name);
                parent.family.births = parent.family.births.wrapping_sub(births);
                parent.family.zxid = zxid;
            });
        }
        if let Some(owned) = self.ephemerals.get_mut(&node.owner) {
            owned.remove(&path);
            if owned.is_empty() {
                self.ephemerals.remove(&node.owner);
            }
        }
        Some((path, node))
    }

    fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Create { path, parent_zxid } => {
                self.unlink(&path, parent_zxid, 1);
            }
            Undo::Delete { path, node, parent_zxid } => self.link(path, node, parent_zxid, 0),
            Undo::SetData { path, data, version, zxid, modified_ms } => {
                self.change_node(&path, |node| {
                    node.data = data;
                    node.version = version;
                    node.modified_zxid = zxid;
                    node.modified_ms = modified_ms;
                });
            }
            Undo::SetAcl { path, acl, version } => {
                self.change_node(&path, |node| {
                    node.acl = acl;
                    node.acl_version = version;
                });
            }
            Undo::Nothing => {}
        }
    }
}

fn check_version(wanted: i32, version: i32) -> Result<(), ErrorCode> {
    if wanted == VERSION_ANY || wanted == version { Ok(()) } else { Err(ErrorCode::BadVersion) }
}
