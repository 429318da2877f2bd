//! Lists procedures and locks, for HBase's `list_procedures` and `list_locks`.

use basalt_hbase_rpc::{Call, Exception, Reply, pb};

use super::{Answer, tables};
use crate::locks::{Holder, LockedResource, Mode, Resource};
use crate::procedure::{Procedure, ProcedureOutcome};
use crate::term::Term;

/// The class name that is reported for a move, which has no procedure.
const MOVE: &str = "move region";

pub(super) fn answer(term: &Term, call: &Call) -> Answer {
    match call.method.as_str() {
        "GetProcedures" => {
            let procedures = term.procedure_store.all();
            let procedure = procedures.iter().map(|(id, found)| to_message(*id, found)).collect();
            Ok(Reply::new(&pb::GetProceduresResponse { procedure }))
        }
        "GetLocks" => {
            let describe = |holder: &Holder| match holder {
                Holder::Procedure(id) => {
                    term.procedure_store.get(*id).map(|procedure| to_message(*id, &procedure))
                }
                Holder::Move(_) => Some(pb::Procedure {
                    class_name: MOVE.to_owned(),
                    state: pb::ProcedureState::Runnable.into(),
                    ..Default::default()
                }),
            };
            let locks = term.locks.list();
            let lock = locks.iter().map(|locked| locked_to_message(locked, describe)).collect();
            Ok(Reply::new(&pb::GetLocksResponse { lock }))
        }
        method => Err(Exception::unknown_method(method)),
    }
}

fn locked_to_message(
    locked: &LockedResource,
    describe: impl Fn(&Holder) -> Option<pb::Procedure>,
) -> pb::LockedResource {
    let (resource_type, resource_name) = match &locked.resource {
        Resource::Table(table) => (pb::LockedResourceType::Table, table.to_string()),
        Resource::Region(region) => (pb::LockedResourceType::Region, region.to_string()),
    };
    let shared = locked.holders.len();
    let (lock_type, shared_lock_count, owner) = match locked.mode {
        Mode::Shared => (pb::LockType::Shared, i32::try_from(shared).ok(), None),
        Mode::Exclusive => {
            (pb::LockType::Exclusive, None, locked.holders.first().and_then(&describe))
        }
    };
    pb::LockedResource {
        resource_type: resource_type.into(),
        resource_name: Some(resource_name),
        lock_type: lock_type.into(),
        exclusive_lock_owner_procedure: owner,
        shared_lock_count,
        waiting_procedures: locked.waiting.iter().filter_map(describe).collect(),
    }
}

fn to_message(id: u64, procedure: &Procedure) -> pb::Procedure {
    let (state, exception) = match &procedure.outcome {
        None => (pb::ProcedureState::Runnable, None),
        Some(ProcedureOutcome::Done) => (pb::ProcedureState::Success, None),
        Some(ProcedureOutcome::Failed { exception, message }) => {
            (pb::ProcedureState::Failed, Some(tables::foreign_exception(exception, message)))
        }
    };
    let nonce = procedure.nonce;
    pb::Procedure {
        class_name: procedure.work.name().to_owned(),
        proc_id: id,
        submitted_time: procedure.submitted_ms,
        last_update: procedure.updated_ms,
        state: state.into(),
        exception,
        nonce_group: nonce.map(|nonce| nonce.group),
        nonce: nonce.map(|nonce| nonce.number),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_listed_with_its_owner_and_its_waiters() {
        let describe = |holder: &Holder| match holder {
            Holder::Procedure(id) => Some(pb::Procedure { proc_id: *id, ..Default::default() }),
            Holder::Move(_) => None,
        };
        let resource = Resource::Table("ns:t".parse().unwrap());
        let (holders, waiting) = (vec![Holder::Procedure(4)], vec![Holder::Procedure(5)]);
        let mut locked = LockedResource { resource, mode: Mode::Exclusive, holders, waiting };
        let entry = locked_to_message(&locked, describe);
        assert_eq!((entry.resource_name(), entry.lock_type()), ("ns:t", pb::LockType::Exclusive));
        assert_eq!(entry.exclusive_lock_owner_procedure.unwrap().proc_id, 4);
        assert_eq!(entry.waiting_procedures[0].proc_id, 5);
        locked.mode = Mode::Shared;
        assert_eq!(locked_to_message(&locked, describe).shared_lock_count, Some(1));
    }
}
