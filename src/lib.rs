//! A log-structured, persistent key-value store with the data model of Workers KV: namespaces,
//! expiry, metadata alongside the value, and listing by prefix with cursors.
//!
//! A store is a directory. Every write is appended to a log of segments; a hash index in memory
//! points to each key's newest record, and a sorted index of keys serves listings. Compaction drops
//! expired, overwritten and deleted records. A read sees every write acknowledged before it, and a
//! write that returned survives what its [`Durability`] names.
//!
//! ```
//! use embercask::{Condition, Error, PutOptions, Store};
//! use std::time::Duration;
//!
//! # #[derive(serde::Serialize, serde::Deserialize, Debug, PartialEq)]
//! # struct User { name: String }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("data");
//! # let user = User { name: "Ada".to_owned() };
//! let store = Store::open(&path)?; // or Store::options().segment_bytes(16 << 20).open(&path)
//! let sessions = store.namespace("SESSIONS")?; // opened, or created
//!
//! sessions.put("user-123", "logged-in")?;
//! if let Some(status) = sessions.get("user-123")? {
//!     assert_eq!(status.as_str()?, "logged-in"); // the bytes are not copied
//! }
//! assert!(sessions.get("nobody")?.is_none());
//!
//! // A lifetime and metadata. A put replaces value, expiry and metadata together.
//! let options = PutOptions::new().ttl(Duration::from_secs(3600)).metadata(r#"{"plan":"pro"}"#);
//! sessions.put_with("user-123", "logged-in", options)?;
//!
//! # #[cfg(feature = "json")] {
//! // JSON, with feature "json".
//! sessions.put_json("user-456", &user)?;
//! let found: Option<User> = sessions.get_json("user-456")?;
//! assert_eq!(found, Some(user));
//! # }
//!
//! // Listing: key by key, or page by page with a cursor. Reverse, ranges and values are options of
//! // the listing.
//! for entry in sessions.list().prefix("user-") {
//!     let entry = entry?;
//!     println!("{} {:?} {:?}", entry.key_str()?, entry.expiry_ms(), entry.metadata());
//! }
//! let first = sessions.list().prefix("user-").page_size(1).page()?;
//! if let Some(cursor) = first.cursor() {
//!     let second = sessions.list().prefix("user-").cursor(cursor).page()?;
//!     assert!(second.is_last());
//! }
//!
//! // Several writes, all applied or none.
//! store.batch().put(&sessions, "a", "1").delete(&sessions, "user-456").commit()?;
//!
//! // A conditional write: here only if the key is absent. The conflict carries the sequence that was
//! // found.
//! let conflict = sessions.put_if("a", "2", Condition::Absent);
//! assert!(matches!(conflict, Err(Error::Conflict { found: Some(_) })));
//!
//! sessions.delete("a")?;
//! store.close()?; // dropping the last handle does it too, but cannot report an error
//! # Ok(())
//! # }
//! ```
//!
//! # Where to look
//!
//! * [`Store`] opens, batches, syncs, compacts and closes; [`Options`] configures it.
//!   [`Options::read_only`] opens it beside a process that writes.
//! * [`Namespace`] reads and writes keys; [`List`] lists them; [`Value`] is what a read returns.
//! * [`Watch`] tells what changes in a namespace.
//! * [`Store::checkpoint`] copies a store, [`Store::verify`] lists its damage, [`verify`] lists
//!   that of a directory, whether or not its store opens or is open, [`salvage`] copies the sound
//!   records out, and [`inspect`] shows a file part by part.
//! * [`Durability`] says what a write survives once it has returned.
//! * [`Error::kind`] says what a program can do about an error.
//! * [`Limits`] says what is accepted; [`Limits::WORKERS_KV`] are the limits of Workers KV.
//!
//! The repository's `docs/` explain the design (`design.md`), specify the files byte by byte
//! (`format.md`), state the guarantees and name the tests that check them (`durability.md`), cover
//! running a store (`operations.md`), and say what later versions will read (`compatibility.md`).
//!
//! # Features
//!
//! None is on by default.
//!
//! * `json`: `put_json`, `put_json_with` and `get_json` on [`Namespace`], and `to_json` on
//!   [`Value`]; adds serde and serde_json.
//! * `log`: what happens in the background, through the `log` facade under the target `embercask`:
//!   recovery, compaction, large sweeps, a full disk, damage, and why writes are refused. A logger
//!   is called while no lock is held, and must not close the store. No key or value is said, except
//!   the key of a damaged record.
//! * `testing`: a simulated disk with power cuts and injected faults, for testing programs that use
//!   a store; see [`storage`].
//!
//! The command `embercask` and its server are in a separate package, `embercask-command`; see
//! `docs/command-line.md`.

#![deny(unsafe_code)]
#![warn(missing_docs, unreachable_pub)]
#![cfg_attr(not(any(test, fuzzing)), warn(clippy::too_many_arguments, clippy::too_many_lines))]
#![warn(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::todo,
    clippy::unimplemented,
    clippy::dbg_macro
)]

mod callback;
mod clock;
mod compact;
mod context;
mod engine;
mod error;
mod format;
#[cfg(all(any(test, fuzzing), not(shuttle)))]
pub mod fuzzing;
mod housekeeping;
mod index;
mod key_bytes;
mod limits;
mod location;
mod log;
mod options;
mod parallel;
mod planted;
mod prefetch;
mod recovery;
mod repair;
mod report;
mod scrub;
mod segment;
mod state;
pub mod storage;
mod store;
mod sync;
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub mod testing;

pub use clock::{Clock, ManualClock, SystemClock};
pub use compact::CompactionReport;
pub use engine::{Background, CheckpointReport, Refreshed};
pub use error::{Error, ErrorKind, Result};
pub use limits::Limits;
pub use log::Event;
pub use options::{
    Condition, Durability, Maintenance, Options, Progress, PutOptions, ReadMode, RingMode, SEGMENT_BYTES_MAX,
    SEGMENT_BYTES_MIN,
};
pub use recovery::RecoveryReport;
pub use repair::*;
pub use scrub::ScrubStats;
pub use segment::{Value, ValueRef};
pub use store::*;

/// Compiles the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// Compiles the examples of the page on moments.
#[cfg(doctest)]
#[doc = include_str!("../docs/moments.md")]
struct Moments;
