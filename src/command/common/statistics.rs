//! Statistics of a store, as JSON.

use embercask::{Error, NamespaceStats, SegmentStats, Stats, Store};
use serde_json::json;

use super::reserved;

/// The statistics of a store, without paths.
pub(crate) fn without_paths(store: &Store) -> serde_json::Value {
    let mut numbers = reserved::stats(store);
    // Error messages name files.
    for problem in [&mut numbers.poisoned, &mut numbers.background_error] {
        *problem = problem.take().map(|_| "the server's log has the details".to_owned());
    }
    numbers.scrub.errors.clear();
    as_json(store, &numbers)
}

/// All statistics of a store, with those of its namespaces and its directory.
pub(crate) fn of_store(store: &Store) -> Result<serde_json::Value, Error> {
    if store.is_read_only() {
        store.refresh()?;
    } else {
        // Counts keys that have expired by now as expired.
        store.maintain()?;
    }
    let mut shown = as_json(store, &reserved::stats(store));
    if let serde_json::Value::Object(fields) = &mut shown {
        let namespaces = reserved::shown_stats(store.namespace_stats()?);
        let namespaces = namespaces.iter().map(namespace_json).collect();
        fields.insert("by_namespace".to_owned(), namespaces);
        fields.insert("read_only".to_owned(), store.is_read_only().into());
        fields.insert("directory".to_owned(), store.directory().display().to_string().into());
    }
    Ok(shown)
}

fn namespace_json(namespace: &NamespaceStats) -> serde_json::Value {
    json!({
        "name": namespace.name,
        "id": format!("{:032x}", namespace.id),
        "keys": namespace.keys,
        "live_bytes": namespace.live_bytes,
    })
}

/// These statistics, and how the store was opened.
pub(crate) fn as_json(store: &Store, numbers: &Stats) -> serde_json::Value {
    let segments: Vec<_> = numbers.segments.iter().map(segment_json).collect();
    let recovery = store.recovery_report();
    json!({
        "keys": numbers.keys,
        "namespaces": numbers.namespaces,
        "live_bytes": numbers.live_bytes,
        "dead_bytes": numbers.dead_bytes,
        "expired_bytes": numbers.expired_bytes,
        "tombstone_bytes": numbers.tombstone_bytes,
        "segment_bytes": numbers.segment_bytes,
        "segments": segments,
        "space": {
            "segment_bytes": numbers.space.segment_bytes,
            "used_bytes": numbers.space.used_bytes,
            "limit_reached": numbers.space.limit_reached,
            "reserve_bytes": numbers.space.reserve_bytes,
            "grace_bytes": numbers.space.grace_bytes,
            "damage_bytes": numbers.space.damage_bytes,
            "pinned_bytes": numbers.space.pinned_bytes,
            "owed_bytes": numbers.space.owed_bytes,
            "paused": numbers.space.paused,
        },
        "memory": {
            "keydir_bytes": numbers.keydir_bytes,
            "key_order_bytes": numbers.key_order_bytes,
            "expiry_queue_bytes": numbers.expiry_queue_bytes,
            "buffer_bytes": numbers.buffer_bytes,
        },
        "snapshots": {
            "open": numbers.snapshots.open,
            "oldest_ms": numbers.snapshots.oldest.as_millis() as u64,
            "kept_records": numbers.snapshots.kept_records,
            "memory_bytes": numbers.snapshots.memory_bytes,
            "disk_bytes": numbers.snapshots.disk_bytes,
        },
        "scrub": {
            "passes": numbers.scrub.passes,
            "bytes": numbers.scrub.bytes,
            "last_pass_ms": numbers.scrub.last_pass_ms,
            "damaged_segments": numbers.scrub.damaged_segments,
            "errors": numbers.scrub.errors,
        },
        "ring_bytes": numbers.ring_bytes,
        "last_sequence": numbers.last_sequence,
        "durable_sequence": numbers.durable_sequence,
        "compaction": {
            "runs": numbers.compaction.runs,
            "read_bytes": numbers.compaction.read_bytes,
            "written_bytes": numbers.compaction.written_bytes,
            "reclaimed_bytes": numbers.compaction.reclaimed_bytes,
        },
        "recovery": {
            "clean": recovery.clean,
            "index_file_used": recovery.index_file_used,
            "hints_used": recovery.hints_used,
            "hints_rebuilt": recovery.hints_rebuilt,
            "segments": recovery.segments,
            "ring_bytes": recovery.ring_bytes,
            "discarded_bytes": recovery.discarded_bytes,
            "rewritten_bytes": recovery.rewritten_bytes,
            "duration_ms": recovery.duration.as_millis() as u64,
        },
        "disk_full": numbers.disk_full,
        "poisoned": numbers.poisoned,
        "background_error": numbers.background_error,
    })
}

fn segment_json(segment: &SegmentStats) -> serde_json::Value {
    json!({
        "id": segment.id,
        "sealed": segment.sealed,
        "created_ms": segment.created_ms,
        "rewritten": segment.rewritten,
        "bytes": segment.bytes,
        "live_records": segment.live_records,
        "live_bytes": segment.live_bytes,
        "dead_bytes": segment.dead_bytes,
        "expired_bytes": segment.expired_bytes,
        "tombstone_bytes": segment.tombstone_bytes,
    })
}
