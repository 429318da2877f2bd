//! A full disk ends no process: it refuses writes, and goes on once there is room.

use std::io::ErrorKind;
use std::time::Duration;

use super::Violation;

/// A process that ends sooner had not begun to serve: one that starts on a full disk may say so.
const SERVES_AFTER: Duration = Duration::from_millis(500);

/// Looks why a process has ended by itself, and how long it had lived.
pub(crate) fn check_full_disk(process: &str, reason: &str, lived: Duration) -> Option<Violation> {
    let is_full_disk = reason.contains(&ErrorKind::StorageFull.to_string());
    let seen = || format!("{process} ended after {lived:?}: {reason}");
    (is_full_disk && lived >= SERVES_AFTER)
        .then(|| Violation::new("a full disk ends no process", seen()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_by_a_full_disk_is_a_violation() {
        let full = std::io::Error::from(ErrorKind::StorageFull);
        let reason = format!("write-ahead log: /WALs/1: cannot append to: {full}");
        let check = |reason: &str, ms| check_full_disk("a", reason, Duration::from_millis(ms));
        assert!(check(&reason, 5_000).is_some());
        assert_eq!(check(&reason, 5), None, "it had only begun");
        assert_eq!(check("it has been declared dead", 5_000), None);
    }
}
