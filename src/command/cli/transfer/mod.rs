//! `embercask export` and `embercask import`: whole namespaces to and from files, in bounded
//! memory.

pub(crate) mod array;
mod compression;
mod default_ttls;
mod encoding;
mod export;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod import;
mod input;
mod left;
mod lines;
mod links;
#[cfg(feature = "miniflare")]
mod miniflare;
mod output;
mod progress;
mod record;
mod source;
pub(crate) mod written;

pub(crate) use export::{export, export_from};
pub(crate) use import::import;
pub(crate) use input::Input;
pub(crate) use source::{Exported, Item, Source, Take, sorted};
