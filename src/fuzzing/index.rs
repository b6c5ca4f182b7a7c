//! The index file of a store with known content: unchanged, changed in places, or replaced.

use std::ops::Range;

use super::store::{opened, prepared, remove_index_file, shown};
use crate::ReadMode;
use crate::format::INDEX_FILE;
use crate::format::index::IndexHead;
use crate::testing::input::{Input, strike};
use crate::testing::repair;

/// The input is a whole file; otherwise it says what to change in the true one.
const WHOLE: u8 = 1;
/// The head names the store and its manifest.
const RELATED: u8 = 2;
/// Lengths and checksums of head and sections are repaired.
const REPAIRED: u8 = 4;
/// Read without maps.
const PREAD: u8 = 8;

/// Range of the head that names store, manifest and hash.
const BINDING: Range<usize> = 12..64;
/// Range of store and manifest alone.
const MANIFEST: Range<usize> = 12..40;

/// An index file: if its checksums are wrong, the store's content is the same as without it. A
/// forged one with correct checksums may hide written records, but cannot invent any.
///
/// The true file's random numbers differ from run to run; its layout does not.
pub fn index_load(data: &[u8]) {
    let mut input = Input::new(data);
    let mode = input.u8();
    let prepared = prepared();
    let truth = prepared.file(INDEX_FILE);
    let mut bytes = if mode & WHOLE != 0 {
        input.rest().to_vec()
    } else {
        changed(truth, &mut input)
    };
    if mode & RELATED != 0 && bytes.len() >= BINDING.end {
        bytes[BINDING].copy_from_slice(&truth[BINDING]);
    }
    if mode & REPAIRED != 0 {
        repair::index(&mut bytes);
    }
    let read_mode = if mode & PREAD == 0 {
        ReadMode::Map
    } else {
        ReadMode::Pread
    };
    let disk = prepared.with(INDEX_FILE, &bytes);
    let opened = opened(&disk, read_mode);
    if bytes == truth || !fits(&bytes, truth) {
        let (listing, report) = opened.unwrap();
        assert_eq!(
            report.index_file_used,
            bytes == truth,
            "an index file is used if it fits, and only then: {report:?}"
        );
        assert_eq!(listing, prepared.listing, "an index file changed what the store shows");
        assert_eq!(
            shown(&disk, read_mode).unwrap(),
            prepared.listing,
            "and so did what it left"
        );
        return;
    }
    if let Ok((listing, _)) = opened {
        prepared.check_written(&listing);
    }
    // Without the index file the true content is back: wrong content was never written to the log.
    remove_index_file(&disk);
    assert_eq!(
        shown(&disk, read_mode).unwrap(),
        prepared.listing,
        "an index file changed the store itself"
    );
}

/// Whether the file names the store and its manifest, and all checksums are correct.
fn fits(bytes: &[u8], truth: &[u8]) -> bool {
    let head = bytes.get(..IndexHead::LEN).map(IndexHead::decode);
    let Some(Ok(head)) = head else { return false };
    if bytes[MANIFEST] != truth[MANIFEST] {
        return false;
    }
    let mut at = IndexHead::LEN as u64;
    head.sections.iter().all(|section| {
        let range = at as usize..at.saturating_add(section.length) as usize;
        at = range.end as u64;
        bytes
            .get(range)
            .is_some_and(|content| crc32fast::hash(content) == section.crc)
    })
}

/// The true file with some bytes changed: numbers overwritten, or damaged with [`strike`].
fn changed(truth: &[u8], input: &mut Input<'_>) -> Vec<u8> {
    let mut bytes = truth.to_vec();
    while !input.is_empty() && !bytes.is_empty() {
        let how = input.u8();
        if how < 128 {
            strike(&mut bytes, input);
            continue;
        }
        // A number of one to eight bytes: a length, a slot, a location, a count. Its offset is
        // counted from the start or from the end.
        let at = usize::from(input.u16()) % bytes.len();
        let at = if how & 64 == 0 { at } else { bytes.len() - 1 - at };
        let number = input.bytes(1 + usize::from(how % 8));
        let end = bytes.len().min(at + number.len());
        bytes[at..end].copy_from_slice(&number[..end - at]);
    }
    bytes
}
