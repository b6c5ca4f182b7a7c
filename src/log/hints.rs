//! Hint files: for each segment that no longer grows, the offsets of its records in key order. They
//! make opening fast, and are used only if they match; a missing or unfit one is rebuilt from its
//! segment.

use std::sync::{Arc, Mutex};

use super::Log;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::format::hint::{Hint, Offsets};
use crate::format::segment::Summary;
use crate::format::{Damage, hint_file};
use crate::location::segment_index;
use crate::planted::{Planted, planted};
use crate::segment::Segment;
use crate::segment::scan::{End, Scanner, Sorter};
use crate::state::Source;
use crate::storage::write_all_at;
use crate::sync::lock;

/// Why a hint may have to be rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HintDoubt {
    /// Opening did not need it.
    Unread,
    /// Opening had to read the whole segment.
    Unfit,
}

/// The hints that may be missing or unfit.
#[derive(Debug, Default)]
pub(crate) struct DoubtfulHints {
    /// By segment, including the one that is being renewed.
    listed: Mutex<Vec<(u64, HintDoubt)>>,
    /// Held by the thread that renews them.
    renewing: Mutex<()>,
}

impl DoubtfulHints {
    /// Sets the doubtful hints that opening has found.
    pub(crate) fn set(&self, doubts: Vec<(u64, HintDoubt)>) {
        *lock(&self.listed) = doubts;
    }

    /// Runs `work` while no hint is being renewed.
    pub(crate) fn while_none_is_renewed<T>(&self, work: impl FnOnce() -> T) -> T {
        let _none = lock(&self.renewing);
        work()
    }
}

/// The hint of a segment; None if it is missing, damaged, or belongs to another segment.
pub(crate) fn read_hint(context: &Context, segment: &Segment) -> Result<Option<Hint>> {
    let name = hint_file(segment.id());
    let Some(summary) = segment.summary else {
        return Ok(None);
    };
    let bytes = match context.directory.read(&name, Hint::len_max(&summary)) {
        Ok(bytes) => bytes,
        Err(error) => match error.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof => {
                return Ok(None);
            }
            _ => return Err(Error::io("read", &context.directory.path_of(&name), error)),
        },
    };
    Ok(Hint::decode(&bytes).ok().filter(|hint| {
        planted(Planted::TrustHint)
            || hint.store_id == segment.header.store_id
                && hint.segment_id == segment.id()
                && hint.data_end == summary.data_end
                && hint.records_crc == summary.records_crc
    }))
}

/// The records of a segment in key order: from its hint, if that exists and may be trusted, or from
/// the segment.
pub(crate) fn source_of(context: &Context, segment: &Arc<Segment>, by_hint: bool) -> Result<Source> {
    if by_hint && let Some(hint) = read_hint(context, segment)? {
        return Ok(Source::hinted(segment.clone(), hint.offsets, hint.keys_crc));
    }
    let (offsets, _) = sort_records(context, segment)?;
    Ok(Source::scanned(segment.clone(), offsets))
}

/// Reads and checks a whole segment that no longer grows. Returns the content of its hint.
pub(crate) fn sort_records(context: &Context, segment: &Segment) -> Result<(Offsets, u32)> {
    let mut scratch = Vec::new();
    let bytes = segment
        .all_bytes(&mut scratch)
        .map_err(|error| context.read_error(segment.id(), 0, error))?;
    let mut scanner = Scanner::new(bytes, segment.header);
    let mut sorter = Sorter::default();
    let end = loop {
        match scanner.next() {
            Ok(found) => sorter.push(bytes, &found),
            Err(end) => break end,
        }
    };
    check_scan(context, segment.id(), &scanner, end, segment.summary)?;
    Ok(sorter.finish())
}

/// An error if a scan of a whole segment that no longer grows came to damage, or counted anything
/// else than the summary does.
pub(crate) fn check_scan(
    context: &Context,
    id: u64,
    scanner: &Scanner<'_>,
    end: End,
    summary: Option<Summary>,
) -> Result<()> {
    let path = context.segment_path(id);
    if let End::Damaged { offset, damage } = end {
        return Err(Error::damage(&path, offset, damage));
    }
    if summary.is_some_and(|summary| summary != scanner.summary()) {
        let damage = Damage::Mismatch("the account of the segment");
        return Err(Error::damage(&path, scanner.valid_end(), damage));
    }
    Ok(())
}

/// Writes and syncs the hint of a segment that no longer grows, replacing any old one.
pub(crate) fn write_hint(context: &Context, segment: &Segment) -> Result<()> {
    let Some(summary) = segment.summary else { return Ok(()) };
    if context.options.in_memory {
        // It is never opened again.
        return Ok(());
    }
    // If part of the segment is damaged, a hint of the rest would silently drop that part.
    let (offsets, keys_crc) = sort_records(context, segment)?;
    let hint = Hint {
        store_id: segment.header.store_id,
        segment_id: segment.id(),
        data_end: summary.data_end,
        records_crc: summary.records_crc,
        keys_crc,
        offsets,
    };
    let name = hint_file(hint.segment_id);
    let directory = &context.directory;
    let fail = |action, error| Error::io(action, &directory.path_of(&name), error);
    directory
        .remove_if_there(&name)
        .map_err(|error| fail("remove", error))?;
    let file = directory.create(&name).map_err(|error| fail("create", error))?;
    let written = write_all_at(&*file, &hint.encode(), 0)
        .map_err(|error| fail("write", error))
        .and_then(|()| file.sync().map_err(|error| fail("sync", error)));
    if written.is_err() {
        // A partial hint is useless, takes space that may be short, and would look like damage.
        let _ = directory.remove(&name);
    }
    written
}

impl Log {
    /// Renews the hints of segments that opening did not read, or whose hints it found unfit.
    /// Returns the number of hints written. One that cannot be written only costs time: the next
    /// open reads its whole segment again.
    ///
    /// One caller at a time, and each hint stays on the list until it has been checked: so when
    /// this returns, no other thread is still writing one, and none on the list can be mistaken for
    /// damaged.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] if the store is closing: some hints may not have been checked.
    pub(crate) fn renew_hints(&self) -> Result<u64> {
        let doubtful = &self.doubtful_hints;
        if planted(Planted::ForgetHintsInHand) {
            let taken = std::mem::take(&mut *lock(&doubtful.listed));
            return Ok(taken.iter().filter(|(id, doubt)| self.renew_hint(*id, *doubt)).count() as u64);
        }
        let _one_at_a_time = lock(&doubtful.renewing);
        let mut renewed = 0;
        loop {
            // A separate statement, since the lock is held until its end.
            let next = lock(&doubtful.listed).last().copied();
            let Some((id, doubt)) = next else { return Ok(renewed) };
            self.context.check_open()?;
            self.context.check_closing()?;
            renewed += u64::from(self.renew_hint(id, doubt));
            lock(&doubtful.listed).pop();
        }
    }

    /// Renews one hint; returns whether it was written.
    fn renew_hint(&self, id: u64, doubt: HintDoubt) -> bool {
        let live = || {
            let segment = self.state.segments.get(segment_index(id));
            segment.filter(|segment| segment.id() == id)
        };
        let Some(segment) = live() else { return false };
        if doubt == HintDoubt::Unread && matches!(read_hint(&self.context, &segment), Ok(Some(_))) {
            return false;
        }
        let written = write_hint(&self.context, &segment);
        if let Err(error) = &written {
            self.context.events.note_background_error(error);
        }
        // The segment may have been compacted away meanwhile.
        if live().is_none() {
            self.files.remove(id);
        }
        written.is_ok()
    }
}

#[cfg(test)]
mod tests;
