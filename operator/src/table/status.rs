//! The status of a table. Pure.

use basalt_api::table::BasaltTableStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

/// The state of a table.
pub(super) enum Finding {
    /// The table cannot be created as it is declared.
    Invalid(String),
    /// Its cluster is missing or does not serve yet.
    Waiting(String),
    /// The table exists.
    Found {
        /// The differences from the declaration.
        differences: Vec<String>,
        /// How many regions it has.
        regions: u32,
        /// How many of them are assigned to a server.
        online: u32,
    },
}

/// Whether the manifest has changed since the table was last found to match or to differ from it.
/// In that case the table is altered. Changes by the shell are reported, not undone.
pub(super) fn has_manifest_changed(before: &BasaltTableStatus, generation: Option<i64>) -> bool {
    let synced = before.conditions.iter().find(|condition| condition.type_ == "Synced");
    synced.is_some_and(|synced| synced.observed_generation < generation)
}

pub(super) fn status(
    finding: Finding,
    before: &BasaltTableStatus,
    generation: Option<i64>,
    now: Timestamp,
) -> BasaltTableStatus {
    let mut status = BasaltTableStatus {
        observed_generation: generation,
        conditions: before.conditions.clone(),
        regions: before.regions,
        online_regions: before.online_regions,
        ..BasaltTableStatus::default()
    };
    let mut set = |kind: &str, holds: bool, reason: &str, message: String| {
        let conditions = &mut status.conditions;
        let value = if holds { "True" } else { "False" };
        let place = conditions.iter().position(|condition| condition.type_ == kind);
        let same = place.and_then(|at| conditions.get(at)).filter(|c| c.status == value);
        let since = same.map_or(Time(now), |condition| condition.last_transition_time.clone());
        let condition = Condition {
            type_: kind.to_owned(),
            status: value.to_owned(),
            reason: reason.to_owned(),
            message,
            observed_generation: generation,
            last_transition_time: since,
        };
        match place.and_then(|at| conditions.get_mut(at)) {
            Some(place) => *place = condition,
            None => conditions.push(condition),
        }
    };
    let phase = match finding {
        Finding::Invalid(message) => {
            set("Ready", false, "Invalid", message);
            "Invalid"
        }
        Finding::Waiting(message) => {
            set("Ready", false, "Waiting", message);
            // A table that existed still exists while its cluster does not serve.
            if before.regions.is_some() { "Degraded" } else { "Creating" }
        }
        Finding::Found { differences, regions, online } => {
            let serves = regions > 0 && online == regions;
            let reason = if serves { "Serving" } else { "RegionsMissing" };
            set("Ready", serves, reason, format!("{online} of {regions} regions are served"));
            let synced = differences.is_empty();
            let message = if synced {
                "the table matches the manifest".to_owned()
            } else {
                format!(
                    "{}; a change of the manifest alters the table, but deletes no family",
                    differences.join("; ")
                )
            };
            set("Synced", synced, if synced { "UpToDate" } else { "Differs" }, message);
            status.regions = Some(regions);
            status.online_regions = Some(online);
            match (serves, synced) {
                (true, true) => "Ready",
                (true, false) => "Differs",
                (false, _) => "Degraded",
            }
        }
    };
    status.phase = Some(phase.to_owned());
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(differences: &[&str], online: u32) -> BasaltTableStatus {
        let differences = differences.iter().map(|d| (*d).to_owned()).collect();
        let finding = Finding::Found { differences, regions: 12, online };
        status(finding, &BasaltTableStatus::default(), Some(1), Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_table_whose_cluster_is_down_is_not_being_made() {
        let waiting = |before: &BasaltTableStatus| {
            let finding = Finding::Waiting("the cluster does not serve".to_owned());
            status(finding, before, Some(1), Timestamp::UNIX_EPOCH).phase.unwrap()
        };
        assert_eq!(waiting(&BasaltTableStatus::default()), "Creating");
        assert_eq!(waiting(&found(&[], 12)), "Degraded");
    }

    #[test]
    fn a_table_is_ready_when_all_its_regions_are_served_as_written() {
        assert_eq!(found(&[], 12).phase.as_deref(), Some("Ready"));
        assert_eq!(found(&[], 11).phase.as_deref(), Some("Degraded"));
        let drifted = found(&["a.versions is 1 but declared as 3"], 12);
        assert_eq!(drifted.phase.as_deref(), Some("Differs"));
        assert!(!has_manifest_changed(&drifted, Some(1)), "the shell changed the table");
        assert!(has_manifest_changed(&drifted, Some(2)));
        assert!(!has_manifest_changed(&BasaltTableStatus::default(), Some(2)), "it is just met");
        let synced = drifted.conditions.iter().find(|c| c.type_ == "Synced").unwrap();
        assert!(synced.status == "False" && synced.message.contains("a.versions"));
    }
}
