//! Reading the ring: a file to which the writer copies what is appended to the active segment and
//! not yet in its file, so that it survives the process.
//!
//! The bytes of a segment at offset X are in the ring at X modulo its length, from the time they
//! are acknowledged until as many bytes later are. The writer sees to it that no more than that is
//! pending. So where the valid records of a segment's file end, the ring goes on with the next one,
//! if there is one that was acknowledged.
//!
//! The ring says nothing about itself. Any part of it may be of another segment, of an earlier part
//! of this one, or torn: a record counts only if its header's checksum, which is bound to the salt
//! of the segment and to the offset, says that it belongs in this place.

use super::scan::Scanner;
use crate::error::{Error, Result};
use crate::format::manifest::RING_BYTES_MAX;
use crate::format::record::{HEADER_LEN_MAX, Header, Place, Record};
use crate::format::segment::SegmentHeader;
use crate::format::{Damage, RING_FILE};
use crate::planted::{Planted, planted};
use crate::storage::{Directory, read_exact_at};

/// The content of a ring.
#[derive(Debug)]
pub(crate) struct Ring(Vec<u8>);

/// Records that follow those in a segment's file.
#[derive(Debug)]
pub(crate) struct Continuation {
    /// Where in the segment they begin.
    pub(crate) offset: u64,
    pub(crate) bytes: Vec<u8>,
}

impl Ring {
    /// Reads the ring of this length that a manifest names; None if it names none.
    pub(crate) fn read(directory: &Directory, ring_bytes: u32) -> Result<Option<Ring>> {
        if ring_bytes == 0 || planted(Planted::IgnoreRing) {
            return Ok(None);
        }
        let path = directory.path_of(RING_FILE);
        let length = u64::from(ring_bytes);
        let differs = || Error::damage(&path, 0, Damage::Mismatch("the length that the manifest gives"));
        let file = match directory.open_file(RING_FILE, false) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::damage(&path, 0, Damage::Missing));
            }
            file => file.map_err(|error| Error::io("open", &path, error))?,
        };
        if file.len().map_err(|error| Error::io("measure", &path, error))? != length {
            return Err(differs());
        }
        let mut bytes = vec![0; length as usize];
        read_exact_at(&*file, &mut bytes, 0).map_err(|error| Error::io("read", &path, error))?;
        Ok(Some(Ring(bytes)))
    }

    /// Reads whatever ring there is, for a store without a manifest; None if there is none.
    pub(crate) fn find(directory: &Directory) -> Result<Option<Ring>> {
        match directory.open_file(RING_FILE, false).and_then(|file| file.len()) {
            Ok(length @ 1..=RING_BYTES_MAX) => Ring::read(directory, length as u32),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("open", &directory.path_of(RING_FILE), error)),
        }
    }

    /// As many bytes as the ring has, from this offset of a segment on.
    pub(crate) fn from(&self, offset: u64) -> Vec<u8> {
        let Ring(bytes) = self;
        let (before, from) = bytes.split_at(offset.checked_rem(bytes.len() as u64).unwrap_or(0) as usize);
        [from, before].concat()
    }

    /// As [`head_at`], as the ring was when it was read.
    pub(crate) fn head_at(&self, offset: u64) -> Head {
        let Ring(bytes) = self;
        let at = |offset: u64| bytes.get(offset.checked_rem(bytes.len() as u64)? as usize);
        let mut head = [0; HEADER_LEN_MAX];
        for (byte, offset) in head.iter_mut().zip(offset..) {
            *byte = at(offset).copied().unwrap_or(0);
        }
        head
    }

    /// Whether the ring may have a record of a segment at this offset: it has the header of one.
    pub(crate) fn may_go_on_at(&self, offset: u64, header: SegmentHeader) -> bool {
        Header::decode(&self.head_at(offset), place(offset, header)).is_ok()
    }

    /// What follows the valid records among these bytes of a segment, if the ring has any of it.
    pub(crate) fn continuation(&self, bytes: &[u8], header: SegmentHeader) -> Option<Continuation> {
        let mut scanner = Scanner::new(bytes, header);
        while scanner.next().is_ok() {}
        self.records_at(scanner.valid_end(), header, |bytes| scanner.pause().resume(bytes))
    }

    /// What the ring has of a segment from this offset on, whatever is before it.
    pub(crate) fn records_from(&self, offset: u64, header: SegmentHeader) -> Option<Continuation> {
        self.records_at(offset, header, |bytes| Scanner::beginning_at(offset, bytes, header))
    }

    fn records_at(
        &self,
        offset: u64,
        header: SegmentHeader,
        scan: impl for<'b> FnOnce(&'b [u8]) -> Scanner<'b>,
    ) -> Option<Continuation> {
        // Most segments go on in their file, or not at all.
        if !self.may_go_on_at(offset, header) {
            return None;
        }
        let mut bytes = self.from(offset);
        Record::parse(&bytes, place(offset, header)).ok()?;
        let mut scanner = scan(&bytes);
        while scanner.next().is_ok() {}
        let length = (scanner.valid_end() - offset) as usize;
        bytes.truncate(length);
        (length > 0).then_some(Continuation { offset, bytes })
    }

    /// Lays what the ring has of a segment over its bytes, from where their valid records end.
    /// Returns whether there is any.
    pub(crate) fn complete(&self, bytes: &mut Vec<u8>, header: SegmentHeader) -> bool {
        let continuation = self.continuation(bytes, header);
        if let Some(continuation) = &continuation {
            continuation.lay_over(bytes);
        }
        continuation.is_some()
    }
}

fn place(offset: u64, header: SegmentHeader) -> Place {
    Place {
        salt: header.salt,
        base_sequence: header.base_sequence,
        offset,
    }
}

impl Continuation {
    /// Lays the records over the bytes of the segment. What its file has behind them stays: there
    /// may be marks.
    pub(crate) fn lay_over(&self, bytes: &mut Vec<u8>) {
        let begin = self.offset as usize;
        let end = begin + self.bytes.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        if let Some(place) = bytes.get_mut(begin..end) {
            place.copy_from_slice(&self.bytes);
        }
    }
}

/// The beginning of what a ring has at one place: as long as a record's header may be, so that
/// another record there begins otherwise.
pub(crate) type Head = [u8; HEADER_LEN_MAX];

/// What the ring of this length has at this offset of a segment, as it is now.
pub(crate) fn head_at(directory: &Directory, ring_bytes: u32, offset: u64) -> std::io::Result<Head> {
    let mut head = [0; HEADER_LEN_MAX];
    let length = u64::from(ring_bytes);
    let Some(position) = offset.checked_rem(length) else {
        return Ok(head);
    };
    let file = directory.open_file(RING_FILE, false)?;
    // It may reach around the end.
    let before_end = head.len().min((length - position) as usize);
    let (first, second) = head.split_at_mut(before_end);
    read_exact_at(&*file, first, position)?;
    let second_len = second.len().min(length as usize);
    read_exact_at(&*file, second.get_mut(..second_len).unwrap_or_default(), 0)?;
    Ok(head)
}
