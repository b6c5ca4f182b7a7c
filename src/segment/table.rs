//! From the segment index in a location to the segment, for readers that take no lock.

use std::sync::{Arc, OnceLock};

use arc_swap::{ArcSwapOption, Guard};

use super::Segment;
use crate::location::Location;

/// Segments on a page of the table.
const PAGE: usize = 256;

/// All live segments by their index. Pages of the table come into being as ids reach them.
#[derive(Debug)]
pub(crate) struct SegmentTable {
    pages: Box<[OnceLock<Page>]>,
}

type Page = Box<[ArcSwapOption<Segment>]>;

impl SegmentTable {
    pub(crate) fn new() -> SegmentTable {
        SegmentTable {
            pages: (0..Location::SEGMENTS_MAX as usize / PAGE)
                .map(|_| OnceLock::new())
                .collect(),
        }
    }

    fn slot(&self, index: u16) -> Option<&ArcSwapOption<Segment>> {
        self.pages
            .get(usize::from(index) / PAGE)?
            .get()?
            .get(usize::from(index) % PAGE)
    }

    /// The segment behind an index, for a short look.
    pub(crate) fn load(&self, index: u16) -> Option<Guard<Option<Arc<Segment>>>> {
        let guard = self.slot(index)?.load();
        guard.is_some().then_some(guard)
    }

    /// The segment behind an index, to keep.
    pub(crate) fn get(&self, index: u16) -> Option<Arc<Segment>> {
        self.slot(index)?.load_full()
    }

    /// Puts a segment in its place, or replaces the object that stood for the same segment.
    #[expect(
        clippy::indexing_slicing,
        reason = "an index is below `SEGMENTS_MAX`, and there are pages of `PAGE` segments for as many"
    )]
    pub(crate) fn set(&self, segment: Arc<Segment>) {
        let index = usize::from(segment.index());
        let page = self.pages[index / PAGE].get_or_init(|| (0..PAGE).map(|_| ArcSwapOption::empty()).collect());
        page[index % PAGE].store(Some(segment));
    }

    /// Forgets a segment; who still reads it keeps it.
    pub(crate) fn remove(&self, index: u16) {
        if let Some(slot) = self.slot(index) {
            slot.store(None);
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
