//! The rules of one run: which shadows hide nothing, and what may be dropped from disk.

use std::collections::HashSet;

use super::Compactor;
use crate::format::record::Header;
use crate::index::namespaces::SYSTEM_NAMESPACE;
use crate::planted::{Planted, planted};
use crate::segment::{SealedSegment, Segment};

/// The rules of one run.
pub(super) struct Rules {
    /// Shadows up to this sequence hide nothing outside the inputs.
    shadow_floor: u64,
    /// The same, for records of dropped namespaces.
    namespace_shadow_floor: u64,
    /// Records that expired up to this time may be dropped; None if none may.
    horizon: Option<u64>,
}

impl Compactor {
    /// The rules of a run over these segments.
    pub(super) fn rules(&self, inputs: &[SealedSegment]) -> Rules {
        let inside: HashSet<u64> = inputs.iter().map(|segment| segment.id()).collect();
        // While keys of dropped namespaces still count as live, the counters cannot tell what their
        // shadow hides.
        let dropping = self.state.namespaces.any_dropped();
        let all = self.state.segments.all();
        let outside = all.iter().filter(|segment| !inside.contains(&segment.id()));
        let shadow_floor = shadow_floor(outside.map(|segment| &**segment));
        Rules {
            shadow_floor,
            namespace_shadow_floor: if dropping { 0 } else { shadow_floor },
            horizon: self.context.time.drop_horizon(self.context.grace_ms()),
        }
    }
}

impl Rules {
    /// Whether no segment outside the inputs can hold an older record that this shadow hides.
    pub(super) fn hides_nothing(&self, header: &Header) -> bool {
        let floor = if header.namespace == SYSTEM_NAMESPACE {
            self.namespace_shadow_floor
        } else {
            self.shadow_floor
        };
        header.sequence <= floor
            || planted(Planted::DropShadowEarly)
            || header.kind.is_put() && planted(Planted::DropExpiredShadow)
    }

    /// Whether a record with this expiry may be dropped from disk. It has left the indexes, but
    /// perhaps only a moment ago.
    pub(super) fn is_past_grace(&self, header: &Header) -> bool {
        let is_past = |horizon| header.expiry.is_some_and(|expiry| expiry <= horizon);
        self.horizon.is_some_and(is_past) || planted(Planted::IgnoreGrace)
    }

    /// Whether an input can be dropped without being read: it has no live records, hides nothing
    /// outside the inputs, and none of its records expired only recently.
    pub(super) fn let_go_unread(&self, input: &SealedSegment) -> bool {
        let (summary, counts) = (input.summary(), input.counters.get());
        let hides_nothing =
            !has_shadows(input) || summary.max_sequence <= self.shadow_floor.min(self.namespace_shadow_floor);
        let expired_long_ago =
            summary.expiring == 0 || self.horizon.is_some_and(|horizon| counts.latest_expired <= horizon);
        counts.live_puts == 0 && (hides_nothing && expired_long_ago || planted(Planted::DropUnread))
    }
}

/// The sequence up to which shadows hide nothing in any of these segments.
pub(super) fn shadow_floor<'a>(segments: impl Iterator<Item = &'a Segment>) -> u64 {
    let floors = segments.filter_map(|segment| segment.counters.get().hides_up_to());
    floors.min().unwrap_or(u64::MAX)
}

/// Whether anything in this segment hides an older record, or may once it expires.
pub(super) fn has_shadows(segment: &SealedSegment) -> bool {
    let summary = segment.summary();
    summary.tombstones > 0 || summary.expiring > 0
}
