//! A server whose serving threads stand still gives up its regions to servers that can serve them.

use super::Violation;

/// Compares the number of starts of a process when its serving threads stopped with the number when
/// they resumed, much later than a session may be silent.
pub(crate) fn check_standstill(process: &str, before: u64, after: u64) -> Option<Violation> {
    let seen = || format!("{process} has kept its session for as long as nobody was served");
    (after <= before).then(|| Violation::new("a server that stands still gives up", seen()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_stays_in_office_is_a_violation() {
        assert!(check_standstill("a", 1, 1).is_some());
        assert_eq!(check_standstill("a", 1, 2), None);
    }
}
