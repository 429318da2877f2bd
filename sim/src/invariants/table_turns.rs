//! Procedures on a table and moves of its regions exclude each other. While a procedure holds a
//! table, no region of the table moves, and no other procedure holds it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Violation;
use crate::witness::WitnessEvent;

/// Checks the invariant for each master; see the module. A master's work ends with its term.
#[derive(Debug, Default)]
pub(crate) struct TableTurns(BTreeMap<Arc<str>, Turns>);

#[derive(Debug, Default)]
struct Turns {
    procedures: BTreeMap<String, u64>,
    moves: BTreeMap<String, BTreeSet<String>>,
}

// === impl TableTurns ===

impl TableTurns {
    pub(crate) fn check(&mut self, event: &WitnessEvent) -> Option<Violation> {
        let WitnessEvent { process, table, region, id, .. } = event;
        let turns = self.0.entry(Arc::clone(process)).or_default();
        let wrong = match event.what.as_str() {
            "active" => {
                *turns = Turns::default();
                None
            }
            "procedure holds" => {
                let other = turns.procedures.insert(table.clone(), *id);
                let other = other.map(|other| format!("procedure {id} while {other} held it"));
                let moves = turns.moves.get(table).filter(|moves| !moves.is_empty());
                other.or_else(|| moves.map(|moves| format!("procedure {id} while {moves:?} moved")))
            }
            "procedure lets go" => {
                turns.procedures.remove(table);
                None
            }
            "move begins" => {
                turns.moves.entry(table.clone()).or_default().insert(region.clone());
                let holder = turns.procedures.get(table);
                holder.map(|holder| format!("a move of {region} while procedure {holder} held it"))
            }
            "move ends" => {
                turns.moves.entry(table.clone()).or_default().remove(region);
                None
            }
            _ => None,
        };
        let seen = |wrong| format!("{process}: {table}: {wrong}");
        wrong.map(|wrong| Violation::new("procedures and moves of a table take turns", seen(wrong)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(what: &str, id: u64, region: &str) -> WitnessEvent {
        let [what, table, region] = [what, "t", region].map(str::to_owned);
        WitnessEvent { what, table, region, id, ..WitnessEvent::default() }
    }

    #[test]
    fn a_move_while_a_procedure_holds_the_table_is_a_violation() {
        let mut turns = TableTurns::default();
        assert_eq!(turns.check(&event("move begins", 0, "r")), None);
        assert_eq!(turns.check(&event("move ends", 0, "r")), None);
        assert_eq!(turns.check(&event("procedure holds", 7, "")), None);
        assert!(turns.check(&event("move begins", 0, "r")).is_some());
        assert_eq!(turns.check(&event("active", 0, "")), None);
        assert_eq!(turns.check(&event("move begins", 0, "r")), None, "another term");
        assert!(turns.check(&event("procedure holds", 7, "")).is_some());
    }
}
