//! A model of a store: plain ordered maps with expiry, and the states since the store was last
//! durable.

use std::collections::BTreeMap;
use std::sync::Arc;

/// The value of one key.
#[derive(Clone, Debug)]
pub struct Item {
    pub value: Arc<[u8]>,
    pub metadata: Option<Arc<[u8]>>,
    pub expiry: Option<u64>,
    /// 0 if unknown.
    pub sequence: u64,
    /// The highest time the store has seen since this was written, if the clock was set back since;
    /// otherwise 0.
    pub seen: u64,
}

impl Item {
    /// Visible by the wall clock; once seen expired, it stays expired.
    pub fn is_visible(&self, now: u64) -> bool {
        self.expiry.is_none_or(|expiry| now.max(self.seen) < expiry)
    }

    /// Ignores sequences: those of writes that a crash cut short are unknown.
    pub fn looks_like(&self, other: &Item) -> bool {
        self.value == other.value && self.metadata == other.metadata && self.expiry == other.expiry
    }
}

/// One namespace. Expired keys stay in it until they are swept.
#[derive(Clone, Debug, Default)]
pub struct Keyspace {
    pub id: u128,
    /// Milliseconds that a key put without a time to live is kept.
    pub default_ttl: Option<u64>,
    pub items: BTreeMap<Vec<u8>, Item>,
}

impl Keyspace {
    pub fn visible(&self, now: u64) -> impl Iterator<Item = (&[u8], &Item)> {
        self.items
            .iter()
            .filter(move |(_, item)| item.is_visible(now))
            .map(|(key, item)| (key.as_slice(), item))
    }

    pub fn get(&self, key: &[u8], now: u64) -> Option<&Item> {
        self.items.get(key).filter(|item| item.is_visible(now))
    }

    /// Visible keys that begin with these bytes.
    pub fn with_prefix<'a>(&'a self, prefix: &'a [u8], now: u64) -> impl Iterator<Item = (&'a [u8], &'a Item)> {
        self.visible(now).filter(move |(key, _)| key.starts_with(prefix))
    }
}

/// A whole store.
#[derive(Clone, Debug, Default)]
pub struct State {
    pub namespaces: BTreeMap<String, Keyspace>,
}

impl State {
    /// Removes expired keys for good.
    pub fn sweep(&mut self, now: u64) {
        for keyspace in self.namespaces.values_mut() {
            keyspace.items.retain(|_, item| item.is_visible(now));
        }
    }

    /// The store has read the clock.
    pub fn see(&mut self, now: u64) {
        let keyspaces = self.namespaces.values_mut();
        for item in keyspaces.flat_map(|keyspace| keyspace.items.values_mut()) {
            item.seen = item.seen.max(now);
        }
    }

    /// Number of keys, including expired ones that are not swept yet.
    pub fn keys(&self) -> u64 {
        self.namespaces
            .values()
            .map(|keyspace| keyspace.items.len() as u64)
            .sum()
    }

    pub fn visible_keys(&self, now: u64) -> u64 {
        self.namespaces
            .values()
            .map(|keyspace| keyspace.visible(now).count() as u64)
            .sum()
    }

    /// Whether a reader at this time could not tell the two apart.
    pub fn looks_like(&self, other: &State, now: u64) -> bool {
        let same_keys = |own: &Keyspace, other: &Keyspace| {
            let (own, other): (Vec<_>, Vec<_>) = (own.visible(now).collect(), other.visible(now).collect());
            own.len() == other.len()
                && own
                    .iter()
                    .zip(&other)
                    .all(|((key, item), (other_key, other))| key == other_key && item.looks_like(other))
        };
        self.namespaces.len() == other.namespaces.len()
            && self
                .namespaces
                .iter()
                .zip(&other.namespaces)
                .all(|((name, own), (other_name, others))| {
                    name == other_name
                        && (own.id, own.default_ttl) == (others.id, others.default_ttl)
                        && same_keys(own, others)
                })
    }
}

/// What an acknowledgement promised to survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    Nothing,
    Kill,
    PowerCut,
}

/// The states since the last one that survives everything. After a crash the store must show one of
/// them.
#[derive(Clone, Debug)]
pub struct History {
    /// The first survives a power cut.
    states: Vec<State>,
    /// Index of the first that survives a kill.
    after_kill: usize,
}

impl Default for History {
    fn default() -> History {
        History {
            states: vec![State::default()],
            after_kill: 0,
        }
    }
}

impl History {
    /// The newest state.
    pub fn now(&self) -> &State {
        self.states.last().expect("there is always one")
    }

    /// The newest state, for updates that are no writes: a sequence that became known, keys that
    /// were swept.
    pub fn now_mut(&mut self) -> &mut State {
        self.states.last_mut().expect("there is always one")
    }

    /// The store has read the clock.
    pub fn see(&mut self, now: u64) {
        self.states.iter_mut().for_each(|state| state.see(now));
    }

    /// Adds the state after a write.
    pub fn push(&mut self, state: State) {
        self.states.push(state);
    }

    /// An acknowledgement of this class covers the newest state and all before it.
    pub fn acknowledge(&mut self, promise: Promise) {
        let last = self.states.len() - 1;
        match promise {
            Promise::Nothing => {}
            Promise::Kill => self.after_kill = last,
            Promise::PowerCut => {
                self.states.drain(..last);
                self.after_kill = 0;
            }
        }
    }

    /// Records a crash that leaves what `survived` covers, after which the store shows `found`,
    /// from here on the only state. An error if that is none of the possible states.
    pub fn settle(&mut self, survived: Promise, found: &State, now: u64) -> Result<(), String> {
        let first = if survived == Promise::PowerCut {
            0
        } else {
            self.after_kill
        };
        let possible = &self.states[first..];
        if !possible.iter().any(|state| state.looks_like(found, now)) {
            let states: Vec<_> = possible.iter().map(|state| describe(state, now)).collect();
            return Err(format!(
                "after a crash, the store shows none of the {} states it may be in:\n{}\npossible, oldest first:\n{}",
                states.len(),
                describe(found, now),
                states.join("\n")
            ));
        }
        self.states = vec![found.clone()];
        self.after_kill = 0;
        Ok(())
    }
}

pub fn describe(state: &State, now: u64) -> String {
    let mut text = String::from("  {");
    for (name, keyspace) in &state.namespaces {
        text += &format!(" {name}:");
        if let Some(ttl) = keyspace.default_ttl {
            text += &format!(" for {ttl} ms");
        }
        for (key, item) in keyspace.visible(now) {
            let (key, value) = (&key[..key.len().min(12)], &item.value[..item.value.len().min(8)]);
            text += &format!(" {}={}@{}", key.escape_ascii(), value.escape_ascii(), item.sequence);
        }
        text += ";";
    }
    text + " }"
}
