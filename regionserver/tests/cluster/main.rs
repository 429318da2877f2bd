//! Tests of a region server with a real coordinator and master: which orders it accepts, and what
//! it answers.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod client_service;
mod orders;
mod owners;
mod running;
mod transit;
mod traps;
