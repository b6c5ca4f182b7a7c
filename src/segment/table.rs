//! Maps the segment index in a location to the segment, without locks for readers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::{ArcSwapOption, Guard};

use super::Segment;
use crate::location::Location;

/// Segments per page of the table.
const PAGE: usize = 256;

/// All live segments by index. Pages of the table are allocated when an id first falls into them.
#[derive(Debug)]
pub(crate) struct SegmentTable {
    pages: Box<[OnceLock<Page>]>,
    removed: AtomicU64,
}

type Page = Box<[ArcSwapOption<Segment>]>;

impl SegmentTable {
    pub(crate) fn new() -> SegmentTable {
        SegmentTable {
            pages: (0..Location::SEGMENTS_MAX as usize / PAGE)
                .map(|_| OnceLock::new())
                .collect(),
            removed: AtomicU64::new(0),
        }
    }

    /// Number of segments that were removed: their indexes may be those of others now.
    pub(crate) fn removed(&self) -> u64 {
        self.removed.load(Ordering::Acquire)
    }

    #[inline]
    fn slot(&self, index: u16) -> Option<&ArcSwapOption<Segment>> {
        self.pages
            .get(usize::from(index) / PAGE)?
            .get()?
            .get(usize::from(index) % PAGE)
    }

    /// The segment with this index, borrowed for a short read.
    #[inline]
    pub(crate) fn load(&self, index: u16) -> Option<Guard<Option<Arc<Segment>>>> {
        let guard = self.slot(index)?.load();
        guard.is_some().then_some(guard)
    }

    /// The segment with this index, with a reference to keep.
    #[inline]
    pub(crate) fn get(&self, index: u16) -> Option<Arc<Segment>> {
        self.slot(index)?.load_full()
    }

    /// Adds a segment, or replaces the object of the same segment.
    #[expect(
        clippy::indexing_slicing,
        reason = "an index is below `SEGMENTS_MAX`, and the pages of `PAGE` segments cover that many"
    )]
    pub(crate) fn set(&self, segment: Arc<Segment>) {
        let index = usize::from(segment.index());
        let page = self.pages[index / PAGE].get_or_init(|| (0..PAGE).map(|_| ArcSwapOption::empty()).collect());
        page[index % PAGE].store(Some(segment));
    }

    /// Removes a segment; current readers keep it alive.
    pub(crate) fn remove(&self, index: u16) {
        if let Some(slot) = self.slot(index) {
            slot.store(None);
            self.removed.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Calls `look` with every live segment, in any order.
    pub(crate) fn for_each(&self, mut look: impl FnMut(&Segment)) {
        let pages = self.pages.iter().filter_map(OnceLock::get);
        for slot in pages.flatten() {
            if let Some(segment) = &*slot.load() {
                look(segment);
            }
        }
    }

    /// All live segments, by ascending id.
    pub(crate) fn all(&self) -> Vec<Arc<Segment>> {
        let pages = self.pages.iter().filter_map(OnceLock::get);
        let mut all: Vec<_> = pages
            .flat_map(|page| page.iter().filter_map(ArcSwapOption::load_full))
            .collect();
        all.sort_by_key(|segment| segment.id());
        all
    }
}
