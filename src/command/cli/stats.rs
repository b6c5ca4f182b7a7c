//! `embercask stats`: statistics of a store, for people and for programs.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};
use embercask::{NamespaceStats, RecoveryReport, Stats as Numbers, Store};

use super::arguments::Stats;
use super::output::{json_line, styled_stdout};
use super::session::Session;
use crate::common::failure::{Failure, Outcome};
use crate::common::interrupt;
use crate::common::reserved;
use crate::common::statistics::of_store;
use crate::common::text::{bytes, count, one_line, time};

/// Cells in a bar.
const BAR_CELLS: u64 = 40;
/// Namespaces that the report for people names.
const NAMESPACES_SHOWN: usize = 8;
/// Segments in a row of the map.
const MAP_CELLS: usize = 40;
/// Interval between checks for Ctrl-C.
const LOOK_EVERY: Duration = Duration::from_millis(50);

const LIVE: Style = AnsiColor::Green.on_default();
const DEAD: Style = AnsiColor::Red.on_default();
const EXPIRED: Style = AnsiColor::Yellow.on_default();
const OTHER: Style = AnsiColor::Blue.on_default();

pub(crate) fn run(session: &Session, arguments: &Stats) -> Outcome {
    let store = session.reading()?;
    let Some(every) = arguments.every else {
        return show(&store, arguments.json);
    };
    if every < LOOK_EVERY {
        return Err(Failure::usage("--every must be at least 0.05 seconds", ""));
    }
    let _expected = interrupt::expect();
    while !interrupt::is_requested() {
        if !arguments.json && std::io::stdout().is_terminal() {
            // Clears the screen.
            write!(std::io::stdout().lock(), "\x1b[2J\x1b[H")?;
        }
        show(&store, arguments.json)?;
        let shown = Instant::now();
        while shown.elapsed() < every && !interrupt::is_requested() {
            std::thread::sleep(LOOK_EVERY);
        }
    }
    Ok(())
}

fn show(store: &Store, json: bool) -> Outcome {
    if json {
        return json_line(&mut std::io::stdout().lock(), &of_store(store)?);
    }
    if store.is_read_only() {
        store.refresh()?;
    } else {
        // Counts keys that have expired by now as expired.
        store.maintain()?;
    }
    let numbers = reserved::stats(store);
    let report = Report {
        directory: one_line(&store.directory().display().to_string()).into_owned(),
        recovery: store.recovery_report(),
        is_read_only: store.is_read_only(),
        numbers: &numbers,
        namespaces: reserved::shown_stats(store.namespace_stats()?),
    };
    let mut out = styled_stdout();
    report.write(&mut out)?;
    Ok(out.flush()?)
}

/// The report for people.
struct Report<'a> {
    directory: String,
    recovery: &'a RecoveryReport,
    /// The store may be in use by a process that writes.
    is_read_only: bool,
    numbers: &'a Numbers,
    namespaces: Vec<NamespaceStats>,
}

impl Report<'_> {
    fn write(&self, out: &mut dyn Write) -> Outcome {
        let numbers = self.numbers;
        let bold = Style::new().bold();
        writeln!(out, "{bold}{}{bold:#}", self.directory)?;
        writeln!(
            out,
            "  {} keys in {} namespaces, {} segments of {} in all",
            count(numbers.keys),
            count(numbers.namespaces),
            count(numbers.segments.len() as u64),
            bytes(numbers.segment_bytes)
        )?;
        self.write_bytes(out)?;
        self.write_namespaces(out)?;
        self.write_map(out)?;
        self.write_memory(out)?;
        self.write_snapshots(out)?;
        self.write_history(out)?;
        for (what, problem) in [
            ("writes are refused", &numbers.poisoned),
            ("background work failed", &numbers.background_error),
        ] {
            if let Some(problem) = problem {
                writeln!(out, "  {DEAD}{what}: {}{DEAD:#}", one_line(problem))?;
            }
        }
        if numbers.disk_full {
            writeln!(out, "  {DEAD}the disk was found full{DEAD:#}")?;
        }
        Ok(())
    }

    /// The bytes on disk by kind, as bars.
    fn write_bytes(&self, out: &mut dyn Write) -> Outcome {
        let numbers = self.numbers;
        let dead = numbers.dead_bytes - numbers.expired_bytes;
        let known = numbers.live_bytes + numbers.dead_bytes + numbers.tombstone_bytes;
        let rows = [
            ("live", numbers.live_bytes, LIVE),
            ("dead", dead, DEAD),
            ("expired", numbers.expired_bytes, EXPIRED),
            ("tombstones", numbers.tombstone_bytes, OTHER),
            ("overhead", numbers.segment_bytes.saturating_sub(known), OTHER),
        ];
        writeln!(out)?;
        for (what, part, style) in rows {
            let percent = part as f64 * 100.0 / numbers.segment_bytes.max(1) as f64;
            writeln!(
                out,
                "  {what:10} {:>11} {percent:5.1} %  {style}{}{style:#}",
                bytes(part),
                bar(part, numbers.segment_bytes)
            )?;
        }
        Ok(())
    }

    /// The largest namespaces.
    fn write_namespaces(&self, out: &mut dyn Write) -> Outcome {
        let mut largest: Vec<_> = self.namespaces.iter().collect();
        largest.sort_by_key(|namespace| std::cmp::Reverse(namespace.live_bytes));
        let shown = largest.get(..NAMESPACES_SHOWN).unwrap_or(&largest);
        if shown.is_empty() {
            return Ok(());
        }
        writeln!(out)?;
        for namespace in shown {
            let share = bar(namespace.live_bytes, self.numbers.live_bytes);
            writeln!(
                out,
                "  {:10} {:>11} {LIVE}{share}{LIVE:#} {} keys in {}",
                "namespace",
                bytes(namespace.live_bytes),
                count(namespace.keys),
                one_line(&namespace.name)
            )?;
        }
        let others = largest.len() - shown.len();
        if others > 0 {
            writeln!(out, "  {:10} {:>11} smaller ones", "", count(others as u64))?;
        }
        Ok(())
    }

    /// Each segment as one cell, as tall as its live share.
    fn write_map(&self, out: &mut dyn Write) -> Outcome {
        if self.numbers.segments.is_empty() {
            return Ok(());
        }
        writeln!(out)?;
        for (number, row) in self.numbers.segments.chunks(MAP_CELLS).enumerate() {
            write!(out, "  {:10} ", if number == 0 { "segments" } else { "" })?;
            for segment in row {
                let style = if !segment.sealed {
                    OTHER
                } else if segment.live_bytes * 2 >= segment.bytes {
                    LIVE
                } else if segment.expired_bytes * 2 >= segment.dead_bytes {
                    EXPIRED
                } else {
                    DEAD
                };
                write!(out, "{style}{}{style:#}", cell(segment.live_bytes, segment.bytes))?;
            }
            writeln!(out)?;
        }
        writeln!(
            out,
            "             oldest first; the height is the live share; {OTHER}being written{OTHER:#}"
        )?;
        Ok(())
    }

    fn write_memory(&self, out: &mut dyn Write) -> Outcome {
        let numbers = self.numbers;
        let index = numbers.keydir_bytes + numbers.key_order_bytes;
        let each = index as f64 / numbers.keys.max(1) as f64;
        writeln!(out)?;
        writeln!(
            out,
            "  {:10} {:>11}  keydir {}, key order {}, {each:.1} bytes a key; expiry {}, buffers {}",
            "memory",
            bytes(index),
            bytes(numbers.keydir_bytes),
            bytes(numbers.key_order_bytes),
            bytes(numbers.expiry_queue_bytes),
            bytes(numbers.buffer_bytes)
        )?;
        Ok(())
    }

    /// What open snapshots hold. Only those of this process are known.
    fn write_snapshots(&self, out: &mut dyn Write) -> Outcome {
        let snapshots = &self.numbers.snapshots;
        if snapshots.open == 0 {
            return Ok(());
        }
        writeln!(
            out,
            "  {:10} {:>11}  in memory for {} open, the oldest for {} s; {} records and {} on disk are kept for them",
            "snapshots",
            bytes(snapshots.memory_bytes),
            count(snapshots.open),
            snapshots.oldest.as_secs(),
            count(snapshots.kept_records),
            bytes(snapshots.disk_bytes)
        )?;
        Ok(())
    }

    fn write_history(&self, out: &mut dyn Write) -> Outcome {
        let compaction = &self.numbers.compaction;
        // The only trace of earlier compactions is the segments that they wrote.
        let rewritten = self.numbers.segments.iter().filter(|segment| segment.rewritten);
        let written_bytes = rewritten.clone().map(|segment| segment.bytes).sum();
        if let Some(last) = rewritten.map(|segment| segment.created_ms).max() {
            let last = time(last);
            let written = bytes(written_bytes);
            writeln!(
                out,
                "  {:10} {written:>11}  in rewritten segments, the newest from {last}",
                "compaction"
            )?;
        }
        if compaction.runs > 0 {
            writeln!(
                out,
                "  {:10} {:>11}  reclaimed by {} runs since the store was opened",
                "",
                bytes(compaction.reclaimed_bytes),
                count(compaction.runs)
            )?;
        }
        let recovery = self.recovery;
        let how = match (recovery.clean, recovery.index_file_used) {
            (true, true) => "closed properly last time, indexes read from the index file",
            (true, false) => "closed properly last time",
            (false, _) if self.is_read_only => "in use, or not closed properly last time",
            (false, _) => "not closed properly last time",
        };
        let took = format!("{} ms", recovery.duration.as_millis());
        writeln!(out, "  {:10} {took:>11}  {how}", "opening")?;
        if recovery.discarded_bytes + recovery.rewritten_bytes > 0 {
            writeln!(
                out,
                "  {:10} {:>11}  discarded after the last whole write, {} rewritten",
                "recovery",
                bytes(recovery.discarded_bytes),
                bytes(recovery.rewritten_bytes)
            )?;
        }
        Ok(())
    }
}

/// A bar as long as the part's share of the whole, in eighths of a cell.
fn bar(part: u64, whole: u64) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (u128::from(part) * u128::from(BAR_CELLS) * 8 / u128::from(whole.max(1))) as usize;
    let last = EIGHTHS.get(eighths % 8).copied().unwrap_or_default();
    "█".repeat(eighths / 8) + last
}

/// A cell as tall as the part's share of the whole.
fn cell(part: u64, whole: u64) -> char {
    const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let height = (u128::from(part) * 8 / u128::from(whole.max(1))).min(7) as usize;
    HEIGHTS.get(height).copied().unwrap_or(' ')
}

#[cfg(test)]
mod tests {
    use embercask::Store;

    use super::*;
    use crate::common::statistics::as_json;

    #[test]
    fn open_snapshots_are_told_of_with_what_they_hold() {
        let store = Store::in_memory().unwrap();
        let namespace = store.namespace("N").unwrap();
        namespace.put("key", "value").unwrap();
        let told = || {
            let numbers = store.stats();
            let report = Report {
                directory: String::new(),
                recovery: store.recovery_report(),
                is_read_only: false,
                numbers: &numbers,
                namespaces: Vec::new(),
            };
            let mut text = Vec::new();
            report.write(&mut text).map_err(|_| "cannot be written").unwrap();
            (String::from_utf8(text).unwrap(), as_json(&store, &numbers))
        };
        let (text, json) = told();
        assert!(!text.contains("snapshots"), "{text}");
        assert_eq!(json["snapshots"]["open"], 0);
        let snapshots = [store.snapshot().unwrap(), store.snapshot().unwrap()];
        namespace.put("key", "another").unwrap();
        let (text, json) = told();
        assert!(
            text.contains("in memory for 2 open, the oldest for ") && text.contains(" s; 1 records"),
            "{text}"
        );
        let shown = &json["snapshots"];
        assert_eq!(
            (&shown["open"], &shown["kept_records"]),
            (&2.into(), &1.into()),
            "{json}"
        );
        assert!(
            shown["memory_bytes"].as_u64().unwrap() > 0 && shown["oldest_ms"].is_u64(),
            "{json}"
        );
        assert!(shown["disk_bytes"].is_u64(), "{json}");
        drop(snapshots);
        assert_eq!(told().1["snapshots"]["kept_records"], 0);
    }
}
