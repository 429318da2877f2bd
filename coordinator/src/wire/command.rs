//! Converts commands to and from messages.

use basalt_zk::proto::{Acl, SessionId};

use crate::tree::{Change, Command, Operation, Origin, Write};
use crate::wire::{Malformed, v1};

// === impl Command ===

impl From<Command> for v1::Command {
    fn from(command: Command) -> Self {
        Self {
            origin: command.origin.map(|origin| v1::Origin {
                member: origin.member,
                life: origin.life,
                number: origin.number,
            }),
            time_ms: command.time_ms,
            change: Some(command.change.into()),
        }
    }
}

impl TryFrom<v1::Command> for Command {
    type Error = Malformed;

    fn try_from(command: v1::Command) -> Result<Self, Malformed> {
        Ok(Self {
            origin: command.origin.map(|origin| Origin {
                member: origin.member,
                life: origin.life,
                number: origin.number,
            }),
            time_ms: command.time_ms,
            change: command
                .change
                .ok_or(Malformed::new("a command without a change"))?
                .try_into()?,
        })
    }
}

// === impl Change ===

impl From<Change> for v1::command::Change {
    fn from(change: Change) -> Self {
        match change {
            Change::SetSecret(secret) => {
                Self::SetSecret(v1::SetSecret { secret: secret.to_vec().into() })
            }
            Change::CreateSession { session, timeout_ms, attachment } => {
                Self::CreateSession(v1::CreateSession {
                    session: session.0,
                    timeout_ms,
                    attachment,
                })
            }
            Change::AttachSession { session, timeout_ms, attachment } => {
                Self::AttachSession(v1::AttachSession {
                    session: session.0,
                    timeout_ms,
                    attachment,
                })
            }
            Change::CloseSession { session, attachment } => {
                Self::CloseSession(v1::CloseSession { session: session.0, attachment })
            }
            Change::ExpireSession { session, term } => {
                Self::ExpireSession(v1::ExpireSession { session: session.0, term })
            }
            Change::Write(write) => Self::Write(v1::Write {
                session: write.session.0,
                attachment: write.attachment,
                operations: write.operations.into_iter().map(Into::into).collect(),
                multi: write.multi,
            }),
        }
    }
}

impl TryFrom<v1::command::Change> for Change {
    type Error = Malformed;

    fn try_from(change: v1::command::Change) -> Result<Self, Malformed> {
        use v1::command::Change as Wire;
        Ok(match change {
            Wire::SetSecret(set) => Self::SetSecret(
                set.secret
                    .as_ref()
                    .try_into()
                    .map_err(|_| Malformed::new("a secret of the wrong length"))?,
            ),
            Wire::CreateSession(create) => Self::CreateSession {
                session: SessionId(create.session),
                timeout_ms: create.timeout_ms,
                attachment: create.attachment,
            },
            Wire::AttachSession(attach) => Self::AttachSession {
                session: SessionId(attach.session),
                timeout_ms: attach.timeout_ms,
                attachment: attach.attachment,
            },
            Wire::CloseSession(close) => Self::CloseSession {
                session: SessionId(close.session),
                attachment: close.attachment,
            },
            Wire::ExpireSession(expire) => {
                Self::ExpireSession { session: SessionId(expire.session), term: expire.term }
            }
            Wire::Write(write) => Self::Write(Write {
                session: SessionId(write.session),
                attachment: write.attachment,
                operations: write
                    .operations
                    .into_iter()
                    .map(Operation::try_from)
                    .collect::<Result<_, _>>()?,
                multi: write.multi,
            }),
        })
    }
}

// === impl Operation ===

impl From<Operation> for v1::Operation {
    fn from(operation: Operation) -> Self {
        use v1::operation::Operation as Wire;
        let operation = match operation {
            Operation::Create { path, data, acl, ephemeral, sequential } => {
                Wire::Create(v1::Create {
                    path,
                    data,
                    acl: acl_to_wire(&acl),
                    ephemeral,
                    sequential,
                })
            }
            Operation::Delete { path, version } => Wire::Delete(v1::Delete { path, version }),
            Operation::SetData { path, data, version } => {
                Wire::SetData(v1::SetData { path, data, version })
            }
            Operation::SetAcl { path, acl, version } => {
                Wire::SetAcl(v1::SetAcl { path, acl: acl_to_wire(&acl), version })
            }
            Operation::Check { path, version } => Wire::Check(v1::Check { path, version }),
        };
        Self { operation: Some(operation) }
    }
}

impl TryFrom<v1::Operation> for Operation {
    type Error = Malformed;

    fn try_from(operation: v1::Operation) -> Result<Self, Malformed> {
        use v1::operation::Operation as Wire;
        let operation = operation
            .operation
            .ok_or(Malformed::new("an operation that this release does not know"))?;
        Ok(match operation {
            Wire::Create(create) => Self::Create {
                path: create.path,
                data: create.data,
                acl: acl_from_wire(create.acl),
                ephemeral: create.ephemeral,
                sequential: create.sequential,
            },
            Wire::Delete(delete) => Self::Delete { path: delete.path, version: delete.version },
            Wire::SetData(set) => {
                Self::SetData { path: set.path, data: set.data, version: set.version }
            }
            Wire::SetAcl(set) => {
                Self::SetAcl { path: set.path, acl: acl_from_wire(set.acl), version: set.version }
            }
            Wire::Check(check) => Self::Check { path: check.path, version: check.version },
        })
    }
}

pub(crate) fn acl_to_wire(acl: &[Acl]) -> Vec<v1::Acl> {
    acl.iter()
        .map(|entry| v1::Acl {
            permissions: entry.permissions,
            scheme: entry.scheme.clone(),
            id: entry.id.clone(),
        })
        .collect()
}

pub(crate) fn acl_from_wire(acl: Vec<v1::Acl>) -> Vec<Acl> {
    acl.into_iter()
        .map(|entry| Acl { permissions: entry.permissions, scheme: entry.scheme, id: entry.id })
        .collect()
}
