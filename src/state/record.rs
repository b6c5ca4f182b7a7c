//! Records as the state sees them: the one applied, the one before, and how to roll back.

use std::collections::HashMap;
use std::sync::Arc;

use super::Group;
use crate::format::record::Header;
use crate::index::namespaces::NamespaceState;
use crate::index::order::KeyFlags;
use crate::location::Location;
use crate::segment::Segment;
use crate::sync::lock;

/// The record that the keydir points at before a write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Current {
    pub(crate) location: Location,
    known: Known,
}

/// What is known of a record.
#[derive(Clone, Copy, Debug)]
enum Known {
    Header(Header),
    /// It is damaged. The flags are those of its key in the key order; the length is 0 unless the
    /// header could be read.
    Damaged {
        flags: KeyFlags,
        length: u64,
    },
}

impl Current {
    pub(super) fn new(location: Location, header: Header) -> Current {
        let known = Known::Header(header);
        Current { location, known }
    }

    pub(super) fn damaged(location: Location, flags: KeyFlags, length: u64) -> Current {
        let known = Known::Damaged { flags, length };
        Current { location, known }
    }

    /// None if it is damaged.
    pub(crate) fn header(&self) -> Option<&Header> {
        match &self.known {
            Known::Header(header) => Some(header),
            Known::Damaged { .. } => None,
        }
    }

    pub(super) fn flags(&self) -> KeyFlags {
        match &self.known {
            Known::Header(header) => flags(header),
            Known::Damaged { flags, .. } => *flags,
        }
    }

    /// Bytes to change the counters of its segment by.
    pub(crate) fn length(&self) -> u64 {
        match &self.known {
            Known::Header(header) => header.record_len(),
            Known::Damaged { length, .. } => *length,
        }
    }

    pub(super) fn expiry(&self) -> Option<u64> {
        self.header().and_then(|header| header.expiry)
    }
}

/// A put or tombstone that was just published in the active segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AppliedRecord<'a> {
    pub(crate) segment: &'a Arc<Segment>,
    pub(crate) offset: u64,
    pub(crate) header: &'a Header,
    pub(crate) namespace: &'a NamespaceState,
    pub(crate) key: &'a [u8],
    pub(crate) hash: u64,
    /// The record that the keydir pointed at before.
    pub(crate) before: Option<&'a Current>,
}

/// A record of a group, as its writer has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GroupRecord<'a> {
    pub(crate) header: &'a Header,
    pub(crate) namespace: &'a NamespaceState,
    pub(crate) key: &'a [u8],
}

/// How to roll back a record, or a group.
#[derive(Clone, Debug)]
pub(crate) struct Undo {
    /// Of the first record.
    pub(crate) offset: u64,
    /// Of the first record.
    pub(crate) sequence: u64,
    pub(super) of: Undone,
}

#[derive(Clone, Debug)]
pub(super) enum Undone {
    Record {
        hash: u64,
        /// The record that the keydir pointed at before.
        before: Option<Current>,
    },
    Group(Arc<Group>),
}

impl Undo {
    pub(super) fn of_record(record: &AppliedRecord<'_>) -> Undo {
        Undo {
            offset: record.offset,
            sequence: record.header.sequence,
            of: Undone::Record {
                hash: record.hash,
                before: record.before.copied(),
            },
        }
    }

    pub(super) fn of_group(group: Arc<Group>) -> Undo {
        let (offset, sequence) = group.begin();
        Undo {
            offset,
            sequence,
            of: Undone::Group(group),
        }
    }

    /// Records were copied: rolling back must restore the copies, not the old locations.
    pub(crate) fn forward(&mut self, copies: &HashMap<Location, Location>) {
        let forward = |before: &mut Option<Current>| {
            if let Some(before) = before
                && let Some(copy) = copies.get(&before.location)
            {
                before.location = *copy;
            }
        };
        match &mut self.of {
            Undone::Record { before, .. } => forward(before),
            Undone::Group(group) => lock(&group.befores).found.iter_mut().for_each(forward),
        }
    }
}

/// A put that was copied into another segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Move {
    pub(crate) hash: u64,
    pub(crate) from: Location,
    pub(crate) to: Location,
    pub(crate) length: u64,
    pub(crate) sequence: u64,
    pub(crate) expiry: Option<u64>,
}

impl Move {
    pub(crate) fn new(hash: u64, header: &Header, from: Location, to: Location) -> Move {
        Move {
            hash,
            from,
            to,
            length: header.record_len(),
            sequence: header.sequence,
            expiry: header.expiry,
        }
    }
}

/// A record's flags in the key order.
pub(crate) fn flags(header: &Header) -> KeyFlags {
    let expires = if header.expiry.is_some() {
        KeyFlags::EXPIRES
    } else {
        KeyFlags::NONE
    };
    let metadata = if header.metadata_len.is_some() {
        KeyFlags::METADATA
    } else {
        KeyFlags::NONE
    };
    expires.union(metadata)
}
