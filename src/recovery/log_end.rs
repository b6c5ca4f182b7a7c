//! Where a log with unsealed last segments ends: used by recovery to cut it, and by verify to judge
//! it.

use crate::format::Damage;
use crate::format::segment::{Mark, SEGMENT_HEADER_LEN};
use crate::planted::{Planted, planted};
use crate::segment::scan::{End, ScanEnd};

/// The end of the log. Segments are named by their position in the slice of scans.
pub(crate) struct LogEnd {
    /// Segments that make up the log, in log order.
    pub(crate) kept: Vec<usize>,
    /// Segments that do not continue the one before them, in their order.
    pub(crate) discarded: Vec<usize>,
    /// Segments that were never written to, or whose very beginning is torn.
    pub(crate) unstarted: Vec<usize>,
    /// Marks and seals of all segments: how far the log is known to be durable.
    claims: Vec<Mark>,
    /// The first place where durable data is missing or damaged.
    pub(crate) missing: Option<(usize, u64, Damage)>,
}

/// Decides where the log ends.
pub(crate) fn find_log_end(segments: &[&ScanEnd]) -> LogEnd {
    let scan = |index: usize| segments.get(index).copied();
    let with_id = |id: u64| segments.iter().position(|scan| scan.segment_id == id);
    // Log order is the order of the segments' first sequences. A segment without a start record was
    // never written to, or its very beginning is torn.
    let (mut log, unstarted): (Vec<_>, Vec<_>) =
        (0..segments.len()).partition(|index| scan(*index).is_some_and(|scan| scan.start.is_some()));
    log.sort_by_key(|index| scan(*index).map(|scan| scan.summary.min_sequence.min(scan.summary.max_sequence)));
    let mut kept = 0;
    for (position, candidate) in log.iter().enumerate() {
        let previous = scan(*candidate).and_then(|scan| scan.start).unwrap_or_default();
        let before = with_id(previous.previous_id)
            .filter(|before| log.iter().take(position).chain(&unstarted).any(|index| index == before))
            .and_then(scan);
        // Bytes after the data of the previous segment, such as an unfinished seal, do not matter.
        let whole = before.is_none_or(|before| {
            before.valid_end == previous.previous_end && before.summary.records_crc == previous.previous_crc
        });
        if !whole && !planted(Planted::IgnoreChain) {
            break;
        }
        kept = position + 1;
    }
    let discarded = log.split_off(kept);
    let all = log.iter().chain(&discarded).chain(&unstarted);
    let claims = all.filter_map(|index| scan(*index)?.claim).collect();
    let mut end = LogEnd {
        kept: log,
        discarded,
        unstarted,
        claims,
        missing: None,
    };
    end.missing = end.claims.iter().find_map(|claim| {
        // Not found: it was sealed since, and perhaps compacted away.
        let about = with_id(claim.segment_id)?;
        let valid_end = scan(about)?.valid_end;
        let is_kept = end.kept.contains(&about);
        let is_missing = valid_end < claim.offset || (!is_kept && claim.offset > SEGMENT_HEADER_LEN);
        if !is_missing || planted(Planted::DamageIsEnd) {
            return None;
        }
        let torn = if valid_end < claim.offset {
            about
        } else {
            let unsealed = |index: &&usize| scan(**index).is_some_and(|scan| scan.end != End::Sealed);
            let mut candidates = end.kept.iter().rev().chain(&end.unstarted);
            candidates.find(unsealed).copied().unwrap_or(about)
        };
        let scan = scan(torn)?;
        Some(match scan.end {
            End::Damaged { offset, damage } => (torn, offset, damage),
            _ => (torn, scan.valid_end, Damage::Short),
        })
    });
    end
}

impl LogEnd {
    /// The last segment with a durable part, and the offset up to which it is durable; all segments
    /// before it in this order are durable as a whole.
    pub(crate) fn durable(&self, order: &[usize], segments: &[&ScanEnd]) -> Option<(usize, u64)> {
        let position = |id: u64| {
            order
                .iter()
                .position(|index| segments.get(*index).is_some_and(|scan| scan.segment_id == id))
        };
        self.claims
            .iter()
            .filter_map(|claim| Some((position(claim.segment_id)?, claim.offset)))
            .max()
    }

    /// All segments in the order in which they were written. One whose beginning is torn is placed
    /// before the segment that names it as its predecessor, or else last.
    pub(crate) fn order(&self, segments: &[&ScanEnd]) -> Vec<usize> {
        let mut order: Vec<usize> = self.kept.iter().chain(&self.discarded).copied().collect();
        for unstarted in &self.unstarted {
            let id = segments.get(*unstarted).map(|scan| scan.segment_id);
            let names_it = |index: &usize| {
                let start = segments.get(*index).and_then(|scan| scan.start);
                start.map(|start| start.previous_id) == id
            };
            let place = order.iter().position(names_it).unwrap_or(order.len());
            order.insert(place, *unstarted);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::segment::{Start, Summary};

    /// A segment with ten records from this sequence on and data up to 1,000, after another one.
    fn scan(segment_id: u64, first_sequence: u64, previous_id: u64, end: End) -> ScanEnd {
        let valid_end = match end {
            End::Damaged { offset, .. } => offset,
            _ => 1_000,
        };
        ScanEnd {
            segment_id,
            end,
            valid_end,
            start: Some(Start {
                previous_id,
                previous_end: 1_000,
                previous_crc: 7,
            }),
            summary: Summary {
                min_sequence: first_sequence,
                max_sequence: first_sequence + 9,
                records_crc: 7,
                ..Summary::default()
            },
            claim: None,
        }
    }

    const TORN: End = End::Damaged {
        offset: 500,
        damage: Damage::HeaderChecksum,
    };

    fn mark(segment_id: u64, offset: u64) -> Option<Mark> {
        Some(Mark { segment_id, offset })
    }

    /// The second was prepared first, but was too small for a value, so the third was created for
    /// it and used first.
    #[test]
    fn the_order_is_that_of_the_records_and_not_that_of_the_ids() {
        let first = scan(1, 1, 0, End::Clean);
        let (prepared, large) = (scan(2, 200, 3, End::Clean), scan(3, 150, 1, End::Clean));
        let end = find_log_end(&[&first, &prepared, &large]);
        assert_eq!(end.kept, [0, 2, 1]);
        assert!(end.missing.is_none() && end.discarded.is_empty() && end.unstarted.is_empty());
        // A torn tail of the last one; the one before was sealed.
        let (prepared, mut large) = (scan(2, 200, 3, TORN), scan(3, 150, 1, End::Sealed));
        large.claim = mark(3, 1_000);
        let segments = [&first, &prepared, &large];
        let end = find_log_end(&segments);
        assert!(end.missing.is_none());
        assert_eq!(end.durable(&end.order(&segments), &segments), Some((1, 1_000)));
        // Damage to the one before, and a mark that says that the last one was durable.
        let (mut prepared, large) = (scan(2, 200, 3, End::Clean), scan(3, 150, 1, TORN));
        prepared.claim = mark(2, 600);
        let segments = [&first, &prepared, &large];
        let end = find_log_end(&segments);
        assert_eq!((end.kept.clone(), end.discarded.clone()), (vec![0, 2], vec![1]));
        assert_eq!(end.missing, Some((2, 500, Damage::HeaderChecksum)));
        assert_eq!(end.durable(&end.order(&segments), &segments), Some((2, 600)));
    }

    #[test]
    fn a_segment_whose_beginning_is_torn_comes_before_the_one_that_names_it_or_else_last() {
        let beginning = End::Damaged {
            offset: SEGMENT_HEADER_LEN,
            damage: Damage::HeaderChecksum,
        };
        let mut torn = scan(2, 0, 0, beginning);
        torn.start = None;
        let (first, names_it) = (scan(1, 1, 0, End::Clean), scan(3, 30, 2, End::Clean));
        let segments = [&torn, &names_it, &first];
        let end = find_log_end(&segments);
        assert_eq!((end.unstarted.clone(), end.order(&segments)), (vec![0], vec![2, 0, 1]));
        let names_the_first = scan(3, 30, 1, End::Clean);
        let segments = [&torn, &names_the_first, &first];
        assert_eq!(find_log_end(&segments).order(&segments), [2, 1, 0]);
    }

    /// A whole segment after one that ends too early, and a mark that says that it was durable.
    #[test]
    fn what_is_missing_is_looked_for_where_the_log_ends_too_early() {
        let first = scan(1, 1, 0, TORN);
        let mut second = scan(2, 30, 1, End::Clean);
        second.claim = mark(2, 1_000);
        let end = find_log_end(&[&first, &second]);
        assert_eq!((end.kept.clone(), end.discarded.clone()), (vec![0], vec![1]));
        assert_eq!(end.missing, Some((0, 500, Damage::HeaderChecksum)));
        // A durable header does not imply that earlier records were durable.
        second.claim = mark(2, SEGMENT_HEADER_LEN);
        assert_eq!(find_log_end(&[&first, &second]).missing, None);
        second.claim = mark(2, SEGMENT_HEADER_LEN + 1);
        assert!(find_log_end(&[&first, &second]).missing.is_some());
    }
}
