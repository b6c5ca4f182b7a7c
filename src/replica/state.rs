//! What a store holds about replication: one namespace of its own, which no client sees.
//!
//! | Key | Value |
//! | --- | --- |
//! | `state` | [`State`] |
//! | `drop` | position of an entry that drops a namespace, while it is applied |
//! | `writer/WRITER` | [`crate::writers`] |
//! | `upload/WRITER/NUMBER` | log time of its last part |
//! | `part/WRITER/NUMBER/INDEX` | the bytes of a part |
//!
//! Ids and numbers in keys are hexadecimal, of fixed length. `docs/replication.md` specifies the
//! values.

use embercask::{Error, Namespace, Store};

use crate::clock::LogTime;
use crate::entry::Digest;
use crate::log::Bounds;

/// Id of the namespace: `embercask-replic` in ASCII.
pub const RESERVED_ID: u128 = 0x656d_6265_7263_6173_6b2d_7265_706c_6963;

/// Name of the namespace. It begins with a byte that no client would choose.
pub const RESERVED_NAME: &str = "\u{0}embercask-replica";

pub(crate) const STATE_KEY: &str = "state";
const STATE_VERSION: u8 = 1;
const STATE_LEN: usize = 62;

/// How far a store has come in its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// The cluster that it belongs to.
    pub cluster: u128,
    /// Position of the last entry that was applied; 0 if none was.
    pub position: u64,
    /// Digest of all entries until there, with what became of them.
    pub digest: Digest,
    /// Log time of that entry.
    pub time: LogTime,
    /// Checksum of that entry; 0 if there is none. A recreated log has another one.
    pub checksum: u32,
}

/// The checksum of an encoded entry, with which it ends.
pub(crate) fn checksum_of(entry: &[u8]) -> u32 {
    entry.last_chunk().map_or(0, |last| u32::from_le_bytes(*last))
}

/// Why a log cannot be the one that a store has applied so far, or cannot go on from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// It no longer keeps what would come next.
    #[error(
        "the log begins at {first}, and this store needs {next} next; seed it again from another node, with `replica join`"
    )]
    Behind {
        /// First position of the log.
        first: u64,
        /// Position that would come next.
        next: u64,
    },
    /// It does not hold what was applied.
    #[error(
        "the log ends at {last}, and this store has applied {position}: it is another log, or has lost entries; \
         see `replica reset-log`"
    )]
    Ahead {
        /// Last position of the log.
        last: u64,
        /// Last position that was applied.
        position: u64,
    },
}

impl State {
    /// That of a store at the beginning of its log.
    pub fn new(cluster: u128) -> State {
        State {
            cluster,
            position: 0,
            digest: [0; 16],
            time: LogTime::default(),
            checksum: 0,
        }
    }

    /// Log time, in milliseconds since the Unix epoch; 0 before the first entry.
    pub fn log_ms(&self) -> u64 {
        self.time.ms()
    }

    /// Whether the store can go on with a log that holds this.
    pub fn check_bounds(&self, bounds: &Bounds) -> Result<(), Misfit> {
        let next = self.position.saturating_add(1);
        match bounds {
            Bounds { last, .. } if *last < self.position => Err(Misfit::Ahead {
                last: *last,
                position: self.position,
            }),
            Bounds { first, .. } if *first > next => Err(Misfit::Behind { first: *first, next }),
            _ => Ok(()),
        }
    }

    fn encode(&self) -> [u8; STATE_LEN] {
        let mut bytes = [0; STATE_LEN];
        let fields: [&[u8]; 8] = [
            &[STATE_VERSION],
            &self.cluster.to_le_bytes(),
            &self.position.to_le_bytes(),
            &self.digest,
            &self.time.ms.to_le_bytes(),
            &[self.time.eighths],
            &self.time.last_stamp_ms.to_le_bytes(),
            &self.checksum.to_le_bytes(),
        ];
        for (to, from) in bytes.iter_mut().zip(fields.into_iter().flatten()) {
            *to = *from;
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<State> {
        let mut fields = Fields(bytes);
        if fields.array()? != [STATE_VERSION] {
            return None;
        }
        let state = State {
            cluster: u128::from_le_bytes(fields.array()?),
            position: fields.u64()?,
            digest: fields.array()?,
            time: LogTime {
                ms: fields.u64()?,
                eighths: u8::from_le_bytes(fields.array()?),
                last_stamp_ms: fields.u64()?,
            },
            checksum: u32::from_le_bytes(fields.array()?),
        };
        fields.end(state)
    }

    /// Reads it from the reserved namespace; `None` if that has none yet.
    pub(crate) fn load(reserved: &Namespace) -> Result<Option<State>, StateError> {
        reserved.get(STATE_KEY)?.map(|value| State::parse(&value)).transpose()
    }

    /// Reads its value in the reserved namespace.
    pub(crate) fn parse(value: &[u8]) -> Result<State, StateError> {
        State::decode(value).ok_or_else(|| unknown(STATE_KEY.as_bytes()))
    }

    /// Key and value of it in the reserved namespace.
    pub(crate) fn record(&self) -> (&'static str, [u8; STATE_LEN]) {
        (STATE_KEY, self.encode())
    }
}

/// Why a store cannot be used as a replica.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StateError {
    /// It belongs to no cluster.
    #[error("the store is no replica; make it the seed of a cluster with `replica init`, or `replica join` one")]
    NotAReplica,
    /// It belongs to one already.
    #[error("the store is a replica already, of cluster {0:032x}")]
    IsAReplica(u128),
    /// A later version wrote what it holds about replication, or something else did.
    #[error("what the store holds under {key:?} about replication is unknown; run a newer embercask, or seed it again")]
    Unknown {
        /// The key in the reserved namespace.
        key: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] Error),
}

pub(crate) fn unknown(key: &[u8]) -> StateError {
    StateError::Unknown {
        key: String::from_utf8_lossy(key).into_owned(),
    }
}

/// Makes a store the seed of a cluster, at the beginning of its log. All its namespaces are then
/// those of the cluster.
pub fn init(store: &Store, cluster: u128) -> Result<(), StateError> {
    if let Some(state) = read(store)? {
        return Err(StateError::IsAReplica(state.cluster));
    }
    let reserved = match store.namespace_by_id(RESERVED_ID)? {
        // An earlier call ended in between.
        Some(reserved) => reserved,
        None => store.create_namespace_with_id(RESERVED_NAME, RESERVED_ID)?,
    };
    let (key, value) = State::new(cluster).record();
    reserved.put(key, value)?;
    store.sync()?;
    Ok(())
}

/// Puts a replica at the beginning of another log, under another cluster id. Log time goes on from
/// where it is, so that nothing that has expired comes back.
pub fn reset(store: &Store, cluster: u128) -> Result<(), StateError> {
    let reserved = reserved(store)?;
    let state = State::load(&reserved)?.ok_or(StateError::NotAReplica)?;
    let mut batch = store.batch();
    let mut entries = reserved.list().walk();
    while let Some(entry) = entries.next()? {
        batch.try_delete(&reserved, entry.key())?;
    }
    let time = state.time;
    let (key, value) = State {
        time,
        ..State::new(cluster)
    }
    .record();
    batch.try_put(&reserved, key, value)?;
    batch.commit()?;
    store.sync()?;
    Ok(())
}

/// How far a store has come, which need not be open for applying; `None` if it is no replica.
pub fn read(store: &Store) -> Result<Option<State>, StateError> {
    match store.namespace_by_id(RESERVED_ID)? {
        Some(reserved) => State::load(&reserved),
        None => Ok(None),
    }
}

/// The reserved namespace.
pub(crate) fn reserved(store: &Store) -> Result<Namespace, StateError> {
    store.namespace_by_id(RESERVED_ID)?.ok_or(StateError::NotAReplica)
}

/// The fields of a value, one after the other.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl Fields<'_> {
    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*array)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// What was read, if that was all.
    pub(crate) fn end<T>(&self, read: T) -> Option<T> {
        self.0.is_empty().then_some(read)
    }
}

#[cfg(test)]
mod tests;
