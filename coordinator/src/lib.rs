//! The coordinator: 1, 3 or 5 members that keep one tree of small nodes, for clients that speak the
//! ZooKeeper protocol. It knows nothing about its clients.
//!
//! A write takes this path: `connection` → `request` → `proposals` (in order, to the leader) →
//! `raft` (synced on a majority of the disks) → `replica` → `tree` (pure apply) → events to the
//! watchers, then the answer to the client. Reads are answered from this member's copy, after all
//! earlier writes of their session.
//!
//! A session is alive while the leader hears of it (`leader_contact`, `expiry`). Its end is a
//! command like any other.

// Fuzz targets call only decoders, so the code that runs a member is unused for them.
#![cfg_attr(fuzzing, allow(dead_code, unreachable_pub))]

mod agreement;
mod config;
mod connection;
mod ensemble;
mod error;
mod expiry;
mod folder;
mod four_letter;
#[cfg(fuzzing)]
pub mod fuzzing;
mod handshake;
mod identity;
mod leader_contact;
mod member;
mod metrics;
mod outgoing;
mod proposals;
mod raft;
mod rejoin;
mod replica;
mod request;
mod room;
mod server;
mod session;
mod tree;
mod watch;
mod wire;

pub use config::{BoundAddresses, Config, CoordinatorTimers, Limits, Member};
pub use error::Error;
pub use raft::StoreError;
pub use raft::log::LogError;
#[cfg(not(fuzzing))]
pub use server::run;
