//! A full disk ends no process: the process rejects writes or waits, and continues once there is
//! space.

use std::io::ErrorKind;

use super::Violation;

/// Checks the reason for which a process has ended by itself.
pub(crate) fn check_full_disk(process: &str, reason: &str) -> Option<Violation> {
    let is_full_disk = reason.contains(&ErrorKind::StorageFull.to_string());
    let seen = || format!("{process} ended: {reason}");
    is_full_disk.then(|| Violation::new("a full disk ends no process", seen()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_by_a_full_disk_is_a_violation() {
        let full = std::io::Error::from(ErrorKind::StorageFull);
        let reason = format!("write-ahead log: /WALs/1: cannot append to: {full}");
        assert!(check_full_disk("a", &reason).is_some());
        assert_eq!(check_full_disk("a", "it has been declared dead"), None);
    }
}
