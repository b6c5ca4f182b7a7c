//! Default lifetimes of namespaces, of an import into a server. They are set once all keys are
//! there, since the REST API has no other way to put keys that live forever.

use std::time::Duration;

use super::record::{self, Read};
use crate::cli::destination::{Destination, Place};
use crate::common::failure::Outcome;

/// Default lifetimes to set. A store has them from the line of the namespace on.
#[derive(Default)]
pub(super) struct DefaultTtls(Vec<(Place, Duration)>);

impl DefaultTtls {
    /// Adds that of a namespace, if it has one.
    pub(super) fn add(&mut self, namespace: &Place, ttl: Option<Duration>) {
        self.0.extend(ttl.map(|ttl| (namespace.clone(), ttl)));
    }

    /// Sets them, with `keep` only where none is set.
    pub(super) fn set(&mut self, destination: &Destination, keep: bool) -> Outcome {
        for (namespace, ttl) in std::mem::take(&mut self.0) {
            destination.set_default_ttl(&namespace, ttl, keep)?;
        }
        Ok(())
    }

    /// The namespace and its default lifetime, in milliseconds, if the line has one.
    pub(super) fn of_line(line: &[u8]) -> Option<(String, u64)> {
        // Most lines are those of keys, and are not worth parsing.
        memchr::memmem::find(line, b"\"default_ttl_ms\"")?;
        match record::read(line).ok()? {
            Read::Namespace {
                name,
                default_ttl_ms: Some(ttl_ms),
                ..
            } => Some((name, ttl_ms)),
            _ => None,
        }
    }
}
