//! Files as cached pages: stored, listed, changed, expired, and checked at every step.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use embercask::{Namespace, Store};
use indicatif::{HumanBytes, HumanCount, ProgressBar};

use crate::page::{Comparison, LIFETIME, Page, now_ms, shown};
use crate::source::SourceFile;
use crate::{Result, ensure};

const NAMESPACE: &str = "PAGES";
/// One page in this many has a lifetime.
const EXPIRING_STEP: usize = 10;
const LISTED_FOLDERS: usize = 3;
const LISTED_KEYS: usize = 3;

/// The pages and their expected contents.
pub(crate) struct Cache {
    namespace: Option<Namespace>,
    /// Sorted by key.
    pages: Vec<Page>,
}

/// Number of pages and of their bytes.
#[derive(Default)]
struct Tally {
    pages: u64,
    bytes: u64,
}

impl Cache {
    /// Puts every file as a page, some with a lifetime of a few seconds.
    pub(crate) fn fill(store: &Store, files: Vec<SourceFile>) -> Result<Cache> {
        println!("  written to the page cache (Durability::Os), with one sync at the end");
        let namespace = store.namespace(NAMESPACE)?;
        let mut pages = Vec::with_capacity(files.len());
        let (mut stored, mut expiring) = (Tally::default(), 0);
        let bar = ProgressBar::new(files.len() as u64);
        for file in bar.wrap_iter(files.into_iter()) {
            let expires = pages.len() % EXPIRING_STEP == 0;
            let mut page = Page::new(file);
            let Some(bytes) = page.put(&namespace, expires)? else {
                continue;
            };
            stored.add(bytes);
            expiring += u64::from(expires);
            pages.push(page);
        }
        store.sync()?;
        println!("  stored: {stored}; {} of them for {LIFETIME:?}", HumanCount(expiring));
        Ok(Cache {
            namespace: Some(namespace),
            pages,
        })
    }

    fn namespace(&self) -> Result<&Namespace> {
        self.namespace
            .as_ref()
            .ok_or_else(|| "the pages have been released".into())
    }

    /// Lists some of the largest folders, page by page.
    pub(crate) fn list_folders(&self) -> Result<()> {
        let mut sizes: BTreeMap<&[u8], u64> = BTreeMap::new();
        for page in &self.pages {
            let end = page
                .file
                .key
                .iter()
                .position(|&byte| byte == b'/')
                .map_or(0, |slash| slash + 1);
            *sizes.entry(page.file.key.get(..end).unwrap_or_default()).or_default() += 1;
        }
        let mut folders: Vec<_> = sizes.into_iter().filter(|(folder, _)| !folder.is_empty()).collect();
        folders.sort_by_key(|&(_, pages)| std::cmp::Reverse(pages));
        folders
            .iter()
            .take(LISTED_FOLDERS)
            .try_for_each(|(folder, _)| self.list_folder(folder))
    }

    fn list_folder(&self, folder: &[u8]) -> Result<()> {
        let mut list = self.namespace()?.list().prefix(folder).page_size(1000);
        let (mut keys, mut pages) = (0, 0);
        let mut first = Vec::new();
        loop {
            let page = list.page()?;
            (keys, pages) = (keys + page.len() as u64, pages + 1);
            let wanted = LISTED_KEYS - first.len();
            for entry in page.iter().take(wanted) {
                if let Some(error) = entry.error() {
                    return Err(error.clone().into());
                }
                first.push(format!(
                    "{} {}",
                    shown(entry.key()),
                    entry.metadata().map(shown).unwrap_or_default()
                ));
            }
            match page.cursor() {
                Some(cursor) => list = list.cursor(cursor),
                None => break,
            }
        }
        println!(
            "  {}: {} keys in {pages} page(s) of at most 1,000, beginning with",
            shown(folder),
            HumanCount(keys)
        );
        first.iter().for_each(|line| println!("    {line}"));
        Ok(())
    }

    /// Reads every page and compares value, metadata and expiry; deleted and expired pages must be
    /// absent.
    pub(crate) fn compare_values(&self) -> Result<()> {
        let namespace = self.namespace()?;
        let (mut same, mut absent, mut changed) = (Tally::default(), 0, 0);
        let bar = ProgressBar::new(self.pages.len() as u64);
        for page in bar.wrap_iter(self.pages.iter()) {
            match page.compare(namespace)? {
                Comparison::Same(bytes) => same.add(bytes),
                Comparison::AbsentAsItMust => absent += 1,
                Comparison::ChangedInTheTree => changed += 1,
            }
        }
        println!(
            "  equal byte for byte: {same}, metadata too; absent as expected: {}",
            HumanCount(absent)
        );
        if changed > 0 {
            println!(
                "  not compared, because the files have changed: {}",
                HumanCount(changed)
            );
        }
        Ok(())
    }

    pub(crate) fn announce_lifetimes(&self) {
        let now_ms = now_ms();
        let over = self.pages.iter().filter(|page| page.has_expired(now_ms)).count();
        println!("  short lifetimes that have already ended: {}", HumanCount(over as u64));
    }

    /// In blocks of ten pages: overwrites one block, keeps one, deletes two, and so on.
    pub(crate) fn change(&mut self) -> Result<()> {
        let namespace = self.namespace()?.clone();
        let (mut overwritten, mut deleted) = (Tally::default(), 0);
        let bar = ProgressBar::new(self.pages.len() as u64);
        for (index, page) in bar.wrap_iter(self.pages.iter_mut().enumerate()) {
            match index / EXPIRING_STEP % 4 {
                0 => {
                    if let Some(bytes) = page.overwrite(&namespace)? {
                        overwritten.add(bytes);
                    }
                }
                1 => {}
                _ => {
                    page.delete(&namespace)?;
                    deleted += 1;
                }
            }
        }
        namespace.store().sync()?;
        println!("  overwritten: {overwritten}; deleted: {}", HumanCount(deleted));
        Ok(())
    }

    /// Waits for the last lifetime to end; then get, list and count must not return the pages.
    pub(crate) fn await_expiry(&self) -> Result<()> {
        let expiring = || {
            self.pages
                .iter()
                .filter(|page| page.is_kept() && page.expiry_ms.is_some())
        };
        let last_ms = expiring().filter_map(|page| page.expiry_ms).max().unwrap_or_default();
        let wait = Duration::from_millis(last_ms.saturating_sub(now_ms()));
        println!(
            "  {} pages have a lifetime; the last one ends in {wait:.1?}",
            HumanCount(expiring().count() as u64)
        );
        while now_ms() < last_ms {
            std::thread::sleep(Duration::from_millis(20));
        }
        let namespace = self.namespace()?;
        for page in expiring() {
            let gone = namespace.get(&page.file.key)?.is_none() && !namespace.contains(&page.file.key)?;
            ensure(gone, || {
                format!("{} is still there after its expiry", shown(&page.file.key))
            })?;
        }
        println!("  gone from get: {}", HumanCount(expiring().count() as u64));
        self.compare_all()
    }

    /// Compares every value, and the listing and the count of all keys. Every lifetime must have
    /// ended.
    pub(crate) fn compare_all(&self) -> Result<()> {
        let namespace = self.namespace()?;
        let now_ms = now_ms();
        let mut expected = self
            .pages
            .iter()
            .filter(|page| page.is_kept() && !page.has_expired(now_ms));
        let mut listed = 0;
        for entry in namespace.list() {
            let entry = entry?;
            let wanted = expected.next().map(|page| page.file.key.as_slice());
            ensure(wanted == Some(entry.key()), || {
                format!(
                    "the listing has {} instead of {:?}",
                    shown(entry.key()),
                    wanted.map(shown)
                )
            })?;
            listed += 1;
        }
        let missing = expected.next().map(|page| shown(&page.file.key));
        ensure(missing.is_none(), || {
            format!("the listing ends before {}", missing.unwrap_or_default())
        })?;
        let count = namespace.count()?;
        ensure(count == listed, || {
            format!("{listed} keys are listed, but {count} are counted")
        })?;
        println!(
            "  listed: {0} keys, exactly those expected; counted: {0}",
            HumanCount(listed)
        );
        self.compare_values()
    }

    /// Drops the handle of the store, so that the store can be closed.
    pub(crate) fn release(&mut self) -> Option<Namespace> {
        self.namespace.take()
    }

    /// Reopens the namespace in the reopened store.
    pub(crate) fn reattach(&mut self, store: &Store) -> Result<()> {
        self.namespace = Some(store.open_namespace(NAMESPACE)?);
        Ok(())
    }
}

impl Tally {
    fn add(&mut self, bytes: usize) {
        self.pages += 1;
        self.bytes += bytes as u64;
    }
}

impl Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} pages, {}", HumanCount(self.pages), HumanBytes(self.bytes))
    }
}
