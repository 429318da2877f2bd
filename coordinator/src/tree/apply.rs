//! Applies a command: determines its verdict, and the changes that connections must be notified of.

use basalt_zk::proto::{ErrorCode, EventType, SessionId, Zxid};

use crate::tree::command::{Change, Command, Origin, Write};
use crate::tree::operations::{Failure, Moment, OperationOutcome};
use crate::tree::state::{Pipeline, Session, State};

/// The result of applying a command.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Applied {
    /// For the client that sent the command. `None` if it was not the next command of its pipeline.
    pub(crate) verdict: Option<Verdict>,
    /// Changes of nodes, for the clients that watch them.
    pub(crate) events: Vec<Event>,
    /// A change of a session, for its connections.
    pub(crate) session: Option<SessionChange>,
}

/// The answer to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The command took effect. For a write, these are the outcomes of its operations.
    Done(Vec<OperationOutcome>),
    /// A write had no effect because its operation number `at` failed.
    Failed { at: usize, error: ErrorCode },
    /// The command had no effect because of its session.
    Refused(ErrorCode),
}

/// A change of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) kind: EventType,
    pub(crate) path: String,
}

/// A change of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionChange {
    /// It belongs to this connection now, and to no other.
    Attached { session: SessionId, attachment: u64 },
    /// It has ended.
    Closed { session: SessionId },
}

// === impl Event ===

impl Event {
    pub(super) fn new(kind: EventType, path: &str) -> Self {
        Self { kind, path: path.to_owned() }
    }
}

// === impl State ===

impl State {
    /// Applies the command at `index` of the log, which was proposed in `term`.
    pub(crate) fn apply(&mut self, index: u64, term: u64, command: &Command) -> Applied {
        if let Some(origin) = command.origin
            && !self.advance_pipeline(origin)
        {
            return Applied::default();
        }
        let moment = |session| Moment {
            session,
            zxid: Zxid(i64::try_from(index).unwrap_or(i64::MAX)),
            time_ms: i64::try_from(command.time_ms).unwrap_or(i64::MAX),
        };
        match &command.change {
            Change::SetSecret(secret) => {
                self.set_secret(*secret);
                Applied::verdict(Verdict::Done(Vec::new()))
            }
            Change::CreateSession { session, timeout_ms, attachment } => {
                if self.sessions.contains_key(session) {
                    return Applied::verdict(Verdict::Refused(ErrorCode::NodeExists));
                }
                self.attach(*session, *timeout_ms, *attachment)
            }
            Change::AttachSession { session, timeout_ms, attachment } => {
                if !self.sessions.contains_key(session) {
                    return Applied::verdict(Verdict::Refused(ErrorCode::SessionExpired));
                }
                self.attach(*session, *timeout_ms, *attachment)
            }
            Change::CloseSession { session, attachment } => {
                match self.check_session(*session, *attachment) {
                    Ok(()) => self.close(moment(*session)),
                    Err(error) => Applied::verdict(Verdict::Refused(error)),
                }
            }
            Change::ExpireSession { session, term: decided_in } => {
                if *decided_in != term || !self.sessions.contains_key(session) {
                    return Applied::verdict(Verdict::Refused(ErrorCode::SessionExpired));
                }
                self.close(moment(*session))
            }
            Change::Write(write) => self.write(write, moment(write.session)),
        }
    }

    /// Whether a command is the next of its member's pipeline. If so, the pipeline advances.
    fn advance_pipeline(&mut self, origin: Origin) -> bool {
        let next = Pipeline { life: origin.life, number: origin.number };
        let is_next = match self.pipelines.get(&origin.member) {
            Some(last) if last.life == next.life => Some(next.number) == last.number.checked_add(1),
            Some(last) => next.life > last.life && next.number == 1,
            None => next.number == 1,
        };
        if is_next {
            self.set_pipeline(origin.member, next);
        }
        is_next
    }

    fn attach(&mut self, session: SessionId, timeout_ms: u32, attachment: u64) -> Applied {
        let attached = Session { timeout_ms, attachment };
        self.insert_session(session, attached);
        Applied {
            session: Some(SessionChange::Attached { session, attachment }),
            ..Applied::verdict(Verdict::Done(Vec::new()))
        }
    }

    fn close(&mut self, moment: Moment) -> Applied {
        let session = moment.session;
        let mut applied = Applied {
            session: Some(SessionChange::Closed { session }),
            ..Applied::verdict(Verdict::Done(Vec::new()))
        };
        let owned = self.ephemerals.get(&session).cloned().unwrap_or_default();
        for path in owned {
            self.delete_ephemeral(&path, moment, &mut applied.events);
        }
        self.remove_session(session);
        assert!(!self.ephemerals.contains_key(&session), "an ended session owns nothing");
        applied
    }

    fn write(&mut self, write: &Write, moment: Moment) -> Applied {
        if let Err(error) = self.check_session(write.session, write.attachment) {
            return Applied::verdict(Verdict::Refused(error));
        }
        let mut events = Vec::new();
        let verdict = match self.run(&write.operations, moment, &mut events) {
            Ok(outcomes) => Verdict::Done(outcomes),
            Err(Failure { at, error }) => Verdict::Failed { at, error },
        };
        Applied { events, ..Applied::verdict(verdict) }
    }

    fn check_session(&self, session: SessionId, attachment: u64) -> Result<(), ErrorCode> {
        match self.sessions.get(&session) {
            None => Err(ErrorCode::SessionExpired),
            Some(session) if session.attachment != attachment => Err(ErrorCode::SessionMoved),
            Some(_) => Ok(()),
        }
    }
}

// === impl Applied ===

impl Applied {
    fn verdict(verdict: Verdict) -> Self {
        Self { verdict: Some(verdict), ..Self::default() }
    }
}
