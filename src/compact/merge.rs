//! The records of several segments, merged into the order of their sequences.
//!
//! A run reads its inputs twice: once to decide and to copy, checking everything, and once to move
//! the index entries. Both times the records come in the same order, so what was decided takes two
//! bits per record ([`Decisions`]), however small the records are.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::format::Damage;
use crate::format::record::Record;
use crate::format::segment::SEGMENT_HEADER_LEN;
use crate::segment::SealedSegment;
use crate::segment::scan::{End, Found, Scanner};

/// An input of a run, with its bytes at hand.
#[derive(Clone, Copy)]
pub(super) struct Loaded<'a> {
    pub(super) input: &'a SealedSegment,
    pub(super) bytes: &'a [u8],
}

/// Reads the records of one segment in order.
pub(super) trait Records<'a> {
    fn of(loaded: &Loaded<'a>) -> Self;

    /// The next put or tombstone, or how reading ended.
    fn next(&mut self) -> Result<Found<'a>, End>;
}

impl<'a> Records<'a> for Scanner<'a> {
    fn of(loaded: &Loaded<'a>) -> Self {
        Scanner::new(loaded.bytes, loaded.input.header)
    }

    fn next(&mut self) -> Result<Found<'a>, End> {
        Scanner::next(self)
    }
}

/// Reads records that a [`Scanner`] has checked before: only their headers are checked again.
pub(super) struct Again<'a> {
    loaded: Loaded<'a>,
    offset: u64,
}

impl<'a> Records<'a> for Again<'a> {
    fn of(loaded: &Loaded<'a>) -> Self {
        Again {
            loaded: *loaded,
            offset: SEGMENT_HEADER_LEN,
        }
    }

    fn next(&mut self) -> Result<Found<'a>, End> {
        let Loaded { input, bytes, .. } = self.loaded;
        while self.offset < input.summary().data_end {
            let offset = self.offset;
            let rest = bytes.get(offset as usize..).unwrap_or_default();
            let record = Record::parse(rest, input.place(offset));
            let record = record.map_err(|damage| End::Damaged { offset, damage })?;
            self.offset += record.header.record_len();
            if record.header.kind.has_key() {
                return Ok(Found { offset, record });
            }
        }
        Err(End::Sealed)
    }
}

/// What a [`Merge`] comes to next.
pub(super) enum Step<'a> {
    Record(Loaded<'a>, Found<'a>),
    /// The rest of this input is skipped.
    Damaged {
        input: Loaded<'a>,
        offset: u64,
        damage: Damage,
    },
}

/// See the module.
pub(super) struct Merge<'a, R> {
    sources: Vec<Source<'a, R>>,
    /// The sequence of the next record of each source that has one, and the source.
    order: BinaryHeap<Reverse<(u64, usize)>>,
    damaged: Vec<Step<'a>>,
}

struct Source<'a, R> {
    loaded: Loaded<'a>,
    records: R,
    next: Option<Found<'a>>,
}

impl<'a, R: Records<'a>> Merge<'a, R> {
    pub(super) fn new(inputs: &[Loaded<'a>]) -> Merge<'a, R> {
        let mut merge = Merge {
            sources: Vec::with_capacity(inputs.len()),
            order: BinaryHeap::with_capacity(inputs.len()),
            damaged: Vec::new(),
        };
        for (number, loaded) in inputs.iter().enumerate() {
            merge.sources.push(Source {
                loaded: *loaded,
                records: R::of(loaded),
                next: None,
            });
            merge.advance(number);
        }
        merge
    }

    fn advance(&mut self, number: usize) {
        let Some(source) = self.sources.get_mut(number) else {
            return;
        };
        match source.records.next() {
            Ok(found) => {
                self.order.push(Reverse((found.record.header.sequence, number)));
                source.next = Some(found);
            }
            Err(End::Damaged { offset, damage }) => self.damaged.push(Step::Damaged {
                input: source.loaded,
                offset,
                damage,
            }),
            Err(End::Sealed | End::Clean) => {}
        }
    }

    /// The record with the lowest sequence that has not been returned yet; damage comes first.
    pub(super) fn next(&mut self) -> Option<Step<'a>> {
        if let Some(damaged) = self.damaged.pop() {
            return Some(damaged);
        }
        let Reverse((_, number)) = self.order.pop()?;
        let source = self.sources.get_mut(number)?;
        let (loaded, found) = (source.loaded, source.next.take()?);
        self.advance(number);
        Some(Step::Record(loaded, found))
    }
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Dropped,
    Copied,
    /// Copied, as an expired put that may not be dropped yet.
    CopiedExpired,
    /// Written as a tombstone.
    Buried,
}

/// A decision for each record, in the order of a [`Merge`].
#[derive(Debug, Default)]
pub(super) struct Decisions {
    /// Four in a byte.
    bits: Vec<u8>,
    len: usize,
}

impl Decisions {
    pub(super) fn push(&mut self, decision: Decision) {
        let bits = decision as u8;
        match self.bits.last_mut().filter(|_| !self.len.is_multiple_of(4)) {
            Some(last) => *last |= bits << (self.len % 4 * 2),
            None => self.bits.push(bits),
        }
        self.len += 1;
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Decision> + '_ {
        (0..self.len).map(|number| {
            let byte = self.bits.get(number / 4).copied().unwrap_or(0);
            match byte >> (number % 4 * 2) & 3 {
                0 => Decision::Dropped,
                1 => Decision::Copied,
                2 => Decision::CopiedExpired,
                _ => Decision::Buried,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_come_back_in_order() {
        let all = [
            Decision::Buried,
            Decision::Dropped,
            Decision::Copied,
            Decision::CopiedExpired,
        ];
        for count in 0..70 {
            let expected: Vec<_> = (0..count).map(|n| all[(n * n + n / 3) % 4]).collect();
            let mut decisions = Decisions::default();
            expected.iter().for_each(|decision| decisions.push(*decision));
            assert_eq!(decisions.iter().collect::<Vec<_>>(), expected);
            assert_eq!(decisions.bits.len(), count.div_ceil(4));
        }
    }
}
