//! Stores that may be damaged: reporting all damage, salvaging the sound records, and showing a
//! file part by part.

mod closed_store;
mod damaged;
mod inspect;
mod salvage;
mod verify;

pub use self::damaged::Damaged;
pub use self::inspect::{FileKind, Part, PartKind, PartValue, inspect};
pub use self::salvage::{SalvageReport, SalvagedSegment, salvage, salvage_with};
pub use self::verify::{VerifyReport, verify, verify_with};
