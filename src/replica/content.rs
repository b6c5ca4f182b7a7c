//! A digest of all that a replica holds for its clients, to compare whole stores.

use embercask::{Snapshot, Store};
use sha2::{Digest as _, Sha256};

use crate::entry::{Digest, first_half};
use crate::state::{RESERVED_ID, STATE_KEY, State, StateError};

/// What a replica holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    /// How far it has come.
    pub state: State,
    /// Namespaces of clients.
    pub namespaces: u64,
    /// Keys in them that were counted.
    pub keys: u64,
    /// Digest of names, ids and default lifetimes of the namespaces, and of all these keys with
    /// their values, metadata and expiries.
    pub digest: Digest,
}

/// Digests what a replica holds, as it is at one moment, beside writers.
///
/// A key that expires before `horizon_ms` is left out, so that stores can be compared while time
/// goes on. They are equal if their states and digests are, for the same horizon, which log time
/// must not reach before this ends.
pub fn digest(store: &Store, horizon_ms: u64) -> Result<Content, StateError> {
    let snapshot = store.snapshot()?;
    let mut infos = snapshot.namespaces()?;
    infos.sort_unstable_by_key(|info| info.id);
    let mut content = Content {
        state: state_in(store, &snapshot)?,
        namespaces: 0,
        keys: 0,
        digest: [0; 16],
    };
    let mut whole = Sha256::new();
    for info in infos.iter().filter(|info| info.id != RESERVED_ID) {
        let namespace = snapshot.open_namespace(&info.name)?;
        content.namespaces += 1;
        whole.update(b"namespace");
        whole.update(info.id.to_le_bytes());
        part(&mut whole, Some(info.name.as_bytes()));
        let ttl = namespace.default_ttl().map(|ttl| ttl.as_millis().to_le_bytes());
        part(&mut whole, ttl.as_ref().map(<[u8; 16]>::as_slice));
        let mut entries = snapshot.list(&namespace)?.with_values().walk();
        while let Some(entry) = entries.next()? {
            if entry.expiry_ms().is_some_and(|expiry_ms| expiry_ms < horizon_ms) {
                continue;
            }
            if let Some(error) = entry.error() {
                return Err(error.clone().into());
            }
            content.keys += 1;
            whole.update(b"key");
            let expiry = entry.expiry_ms().map(u64::to_le_bytes);
            part(&mut whole, Some(entry.key()));
            part(&mut whole, entry.value().map(|value| value.as_bytes()));
            part(&mut whole, entry.metadata());
            part(&mut whole, expiry.as_ref().map(<[u8; 8]>::as_slice));
        }
    }
    content.digest = first_half(&whole.finalize().into());
    Ok(content)
}

/// The state of that moment.
fn state_in(store: &Store, snapshot: &Snapshot) -> Result<State, StateError> {
    let reserved = store.namespace_by_id(RESERVED_ID)?.ok_or(StateError::NotAReplica)?;
    let value = snapshot.get(&reserved, STATE_KEY)?.ok_or(StateError::NotAReplica)?;
    State::parse(&value)
}

/// Each part follows its length, so that no bytes can move from one to another; absent ones differ
/// from empty ones.
fn part(whole: &mut Sha256, part: Option<&[u8]>) {
    whole.update([u8::from(part.is_some())]);
    let part = part.unwrap_or_default();
    whole.update((part.len() as u64).to_le_bytes());
    whole.update(part);
}
