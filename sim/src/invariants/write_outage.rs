//! During the faults of a scenario, no write takes longer than the scenario's bound.

use std::time::Duration;

use super::Violation;

/// Compares the longest write to a region with the scenario's bound, if there is one.
pub(crate) fn check_write_outage(longest: Duration, bound: Option<Duration>) -> Option<Violation> {
    let bound = bound.filter(|bound| longest > *bound)?;
    let seen = format!("a region took {longest:?} for a write, at most {bound:?} are allowed");
    Some(Violation::new("writes go on during the faults", seen))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_longer_outage_than_the_bound_is_a_violation() {
        let second = Duration::from_secs(1);
        assert!(check_write_outage(second * 3, Some(second * 2)).is_some());
        assert_eq!(check_write_outage(second * 2, Some(second * 2)), None);
        assert_eq!(check_write_outage(second * 3, None), None);
    }
}
