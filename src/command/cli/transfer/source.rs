//! What an export is made of: a store, or a server.

use std::ops::ControlFlow;
use std::time::Duration;

use embercask::{Namespace, Snapshot, Store};

use crate::cli::entry::Entry;
use crate::common::failure::Outcome;
use crate::common::reserved;
use crate::planted::{Planted, planted};

/// Keys per page; their values stay on disk until they are written.
const PAGE_KEYS: usize = 1000;

/// A namespace to export.
pub(crate) struct Exported {
    pub(crate) name: String,
    /// 32 hexadecimal digits.
    pub(crate) id: String,
    pub(crate) default_ttl: Option<Duration>,
}

/// A key, or why it cannot be exported.
pub(crate) enum Item<'a> {
    Entry(Entry<'a>),
    Unreadable(String),
}

/// Takes items, until it breaks.
pub(crate) type Take<'a> = &'a mut dyn FnMut(Item<'_>) -> Outcome<ControlFlow<()>>;

pub(crate) trait Source {
    /// What tells it from others.
    fn identity(&self) -> String;

    /// The namespaces with these names, or all; sorted by name.
    fn namespaces(&self, names: &[String]) -> Outcome<Vec<Exported>>;

    /// The number of keys with this prefix, if that is easily known.
    fn count(&self, namespace: &Exported, prefix: &[u8]) -> Outcome<Option<u64>>;

    /// Passes on the keys with this prefix, after a key.
    fn entries(
        &self,
        namespace: &Exported,
        prefix: &[u8],
        after: Option<&[u8]>,
        take: Take<'_>,
    ) -> Outcome<ControlFlow<()>>;
}

/// Names without duplicates, sorted.
pub(crate) fn sorted(names: &[String]) -> Vec<String> {
    let mut names = names.to_vec();
    names.sort();
    names.dedup();
    names
}

/// A store as it is at one moment, across namespaces.
pub(super) struct Moment {
    store: Store,
    snapshot: Snapshot,
}

impl Moment {
    pub(super) fn of(store: Store) -> Outcome<Moment> {
        let snapshot = store.snapshot()?;
        Ok(Moment { store, snapshot })
    }

    fn namespace(&self, exported: &Exported) -> Outcome<Namespace> {
        Ok(self.snapshot.open_namespace(&exported.name)?)
    }
}

impl Source for Moment {
    fn identity(&self) -> String {
        format!("{:032x}", self.store.id())
    }

    fn namespaces(&self, names: &[String]) -> Outcome<Vec<Exported>> {
        let names = match names {
            [] => {
                let all = reserved::shown(self.snapshot.namespaces()?);
                all.into_iter().map(|info| info.name).collect()
            }
            names => names.to_vec(),
        };
        let open = |name: String| {
            let namespace = self.snapshot.open_namespace(&name)?;
            let default_ttl = namespace.default_ttl().filter(|_| !planted(Planted::ExportNoSettings));
            Ok(Exported {
                name,
                id: format!("{:032x}", namespace.id()),
                default_ttl,
            })
        };
        sorted(&names).into_iter().map(open).collect()
    }

    fn count(&self, namespace: &Exported, prefix: &[u8]) -> Outcome<Option<u64>> {
        let namespace = self.namespace(namespace)?;
        Ok(Some(self.snapshot.list(&namespace)?.prefix(prefix).count()?))
    }

    fn entries(
        &self,
        namespace: &Exported,
        prefix: &[u8],
        after: Option<&[u8]>,
        take: Take<'_>,
    ) -> Outcome<ControlFlow<()>> {
        let namespace = self.namespace(namespace)?;
        let list = match planted(Planted::ExportThePresent) {
            true => namespace.list(),
            false => self.snapshot.list(&namespace)?,
        };
        let mut list = list.prefix(prefix).with_values().page_size(PAGE_KEYS);
        if let Some(after) = after {
            list = list.start_after(after);
        }
        loop {
            let page = list.page()?;
            for entry in page.iter() {
                let item = match entry.error() {
                    Some(error) => Item::Unreadable(error.to_string()),
                    None => Item::Entry(Entry::of(&entry)),
                };
                if take(item)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            match page.cursor() {
                Some(cursor) => list = list.cursor(cursor),
                None => return Ok(ControlFlow::Continue(())),
            }
        }
    }
}
