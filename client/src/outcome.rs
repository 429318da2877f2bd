//! The result of a single attempt, as far as it is known.

use crate::{Error, Result};

/// The outcome of one attempt.
#[derive(Clone, Debug)]
pub enum Outcome<T> {
    /// The server has answered.
    Acked(T),
    /// It has certainly not been applied.
    Failed(Error),
    /// It may have been applied, or may still be.
    Unknown(Error),
}

// === impl Outcome ===

impl<T> Outcome<T> {
    /// Whether the server has answered.
    pub fn is_acked(&self) -> bool {
        matches!(self, Self::Acked(_))
    }

    pub(crate) fn of(result: Result<T>) -> Self {
        match result {
            Ok(value) => Self::Acked(value),
            Err(error) if error.is_not_applied() => Self::Failed(error),
            Err(error) => Self::Unknown(error),
        }
    }
}
