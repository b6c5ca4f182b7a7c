//! What the tour prints about the store itself.

use std::io;
use std::path::Path;
use std::time::Duration;

use embercask::{RecoveryReport, Store};
use indicatif::{HumanBytes, HumanCount};

use crate::{Result, ensure};

/// Compacts, and prints how much was reclaimed.
pub(crate) fn compaction(store: &Store) -> Result<()> {
    let before = store.stats();
    let disk_before = disk_bytes(store.directory())?;
    println!(
        "  reclaimed in the background before: {}",
        HumanBytes(before.compaction.reclaimed_bytes)
    );
    let report = store.compact()?;
    println!(
        "  before: {} live, {} dead, {} on disk",
        HumanBytes(before.live_bytes),
        HumanBytes(before.dead_bytes),
        HumanBytes(disk_before)
    );
    println!(
        "  runs: {}; read {}, wrote {}; dead afterwards: {}, on disk: {}",
        report.runs,
        HumanBytes(report.read_bytes),
        HumanBytes(report.written_bytes),
        HumanBytes(store.stats().dead_bytes),
        HumanBytes(disk_bytes(store.directory())?)
    );
    Ok(())
}

/// Prints what opening found.
pub(crate) fn recovery(report: &RecoveryReport) {
    if report.created {
        println!("  created");
        return;
    }
    let indexes = if report.index_file_used {
        "indexes read from their file".to_owned()
    } else {
        format!("{} hints used, {} rebuilt", report.hints_used, report.hints_rebuilt)
    };
    println!(
        "  {}: {} keys in {} segments, {indexes}",
        if report.clean {
            "closed properly before"
        } else {
            "not closed before, recovered"
        },
        HumanCount(report.keys),
        report.segments
    );
    println!(
        "  discarded {}, rewritten {}, files removed {}, opening took {}",
        HumanBytes(report.discarded_bytes),
        HumanBytes(report.rewritten_bytes),
        report.removed_files,
        seconds(report.duration)
    );
}

/// Prints keys, bytes and memory; fails if the store reports a failure.
pub(crate) fn statistics(store: &Store) -> Result<()> {
    let stats = store.stats();
    println!("  keys: {} in {} namespaces", HumanCount(stats.keys), stats.namespaces);
    println!(
        "  live: {}, dead: {}",
        HumanBytes(stats.live_bytes),
        HumanBytes(stats.dead_bytes)
    );
    println!(
        "  segments: {}, disk: {} (including the reserve for a full disk)",
        stats.segments.len(),
        HumanBytes(disk_bytes(store.directory())?)
    );
    let index_bytes = stats.keydir_bytes + stats.key_order_bytes;
    println!(
        "  memory: keydir {}, key order {}: {:.1} bytes per key",
        HumanBytes(stats.keydir_bytes),
        HumanBytes(stats.key_order_bytes),
        index_bytes as f64 / stats.keys.max(1) as f64
    );
    let failure = stats.poisoned.or(stats.background_error);
    ensure(failure.is_none(), || {
        format!("the store reports a failure: {}", failure.unwrap_or_default())
    })
}

/// Total size of all files in the store's directory.
fn disk_bytes(directory: &Path) -> io::Result<u64> {
    directory.read_dir()?.map(|entry| Ok(entry?.metadata()?.len())).sum()
}

/// Formats a duration for people.
pub(crate) fn seconds(duration: Duration) -> String {
    match duration.as_secs_f64() {
        seconds if seconds < 1.0 => format!("{:.1} ms", seconds * 1000.0),
        seconds => format!("{seconds:.2} s"),
    }
}
