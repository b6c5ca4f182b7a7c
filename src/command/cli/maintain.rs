//! `embercask compact`, `verify`, `salvage` and `checkpoint`.

use std::io::Write;
use std::time::Duration;

use embercask::{CompactionReport, Damaged, Options, Progress, SalvageReport, Store, VerifyReport};
use indicatif::ProgressBar;
use serde_json::json;

use super::arguments::{Checkpoint, Salvage, Verify};
use super::output::{json_line, stdout};
use super::session::Session;
use crate::common::failure::{Failure, Outcome};
use crate::common::interrupt;
use crate::common::text::{bytes, count, one_line};

/// Interval between redraws of a bar.
const DRAW_EVERY: Duration = Duration::from_millis(50);

/// Shows progress, and returns whether to continue.
fn follow(bar: &ProgressBar) -> impl FnMut(Progress) -> bool + '_ {
    |progress| {
        bar.set_length(progress.total_bytes);
        bar.set_position(progress.done_bytes);
        !interrupt::is_requested()
    }
}

pub(crate) fn compact(session: &Session) -> Outcome {
    let store = session.store()?;
    let _expected = interrupt::expect();
    let before = store.stats().segment_bytes;
    let bar = session.bytes_bar("compacting");
    let report = compact_watched(&store, &bar);
    bar.finish_and_clear();
    let report = report?;
    session.say(format_args!(
        "Reclaimed {} of {}: {} runs read {} and wrote {}.",
        bytes(report.reclaimed_bytes),
        bytes(before),
        count(report.runs),
        bytes(report.read_bytes),
        bytes(report.written_bytes)
    ))
}

/// Compacts on another thread, so that this one can draw the bar and check for Ctrl-C.
fn compact_watched(store: &Store, bar: &ProgressBar) -> Outcome<CompactionReport> {
    std::thread::scope(|scope| {
        let work = scope.spawn(|| store.compact());
        while !work.is_finished() {
            let progress = store.compaction_progress();
            bar.set_length(progress.total_bytes);
            bar.set_position(progress.done_bytes);
            if interrupt::is_requested() {
                // Repeatedly: cancelling stops only the run under way.
                store.cancel_compaction();
            }
            std::thread::sleep(DRAW_EVERY);
        }
        match work.join() {
            Ok(report) => Ok(report?),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn damage_json(damaged: &Damaged) -> serde_json::Value {
    json!({
        "file": damaged.path.display().to_string(),
        "segment": damaged.segment,
        "offset": damaged.offset,
        "length": damaged.length,
        "cause": damaged.cause,
    })
}

pub(crate) fn verify(session: &Session, arguments: &Verify) -> Outcome {
    let _expected = interrupt::expect();
    let bar = session.bytes_bar("verifying");
    let verified = match session.opened() {
        // In a shell the store is open; then the keys in memory are checked too.
        Some(store) => store.verify_with(follow(&bar)),
        None => embercask::verify_with(
            session.path()?,
            &session.chosen_options()?.apply(Options::default()),
            follow(&bar),
        ),
    };
    bar.finish_and_clear();
    let report = verified?;
    let written = tell_verified(&report, arguments.json);
    Failure::unless_sound(report.is_sound(), written)
}

fn tell_verified(report: &VerifyReport, as_json: bool) -> Outcome {
    let mut out = stdout();
    if as_json {
        let ranges = |ranges: &[Damaged]| ranges.iter().map(damage_json).collect::<Vec<_>>();
        let line = json!({
            "sound": report.is_sound(),
            "segments": report.segments,
            "records": report.records,
            "bytes": report.bytes,
            "hints": report.hints,
            "keys": report.keys,
            "damaged": ranges(&report.damaged),
            "discarded": ranges(&report.discarded),
        });
        json_line(&mut out, &line)?;
        return Ok(out.flush()?);
    }
    for damaged in &report.damaged {
        line(&mut out, format_args!("damaged: {damaged}"))?;
    }
    for discarded in &report.discarded {
        line(&mut out, format_args!("opening discards or rebuilds: {discarded}"))?;
    }
    let verdict = match report.damaged.len() {
        0 => "sound".to_owned(),
        1 => "1 range is damaged".to_owned(),
        ranges => format!("{} ranges are damaged", count(ranges as u64)),
    };
    writeln!(
        out,
        "{verdict}: {} segments, {} records, {}",
        count(report.segments),
        count(report.records),
        bytes(report.bytes)
    )?;
    Ok(out.flush()?)
}

/// Writes a line that contains names of files or namespaces.
fn line(out: &mut dyn Write, line: std::fmt::Arguments<'_>) -> Outcome {
    Ok(writeln!(out, "{}", one_line(&line.to_string()))?)
}

pub(crate) fn salvage(session: &Session, arguments: &Salvage) -> Outcome {
    if session.opened().is_some() {
        return Err(Failure::usage(
            "an open store cannot be salvaged",
            "leave the shell, then run `embercask salvage TO`",
        ));
    }
    let _expected = interrupt::expect();
    let bar = session.bytes_bar("salvaging");
    let path = session.path()?;
    let options = session.chosen_options()?.apply(Options::default());
    let salvaged = session.waiting(|| embercask::salvage_with(&path, &arguments.to, options.clone(), follow(&bar)));
    bar.finish_and_clear();
    let report = salvaged?;
    let written = tell_salvaged(&report, arguments);
    Failure::unless_sound(report.is_complete(), written)
}

fn tell_salvaged(report: &SalvageReport, arguments: &Salvage) -> Outcome {
    let mut out = stdout();
    if arguments.json {
        let line = json!({
            "complete": report.is_complete(),
            "manifest": report.manifest,
            "namespaces": report.namespaces,
            "recovered_namespaces": report.recovered_namespaces,
            "keys": report.keys,
            "bytes": report.bytes,
            "expired": report.expired,
            "lost": report.all_lost().map(damage_json).collect::<Vec<_>>(),
        });
        json_line(&mut out, &line)?;
        return Ok(out.flush()?);
    }
    if !report.manifest {
        writeln!(out, "the manifest could not be read: deleted keys may have come back")?;
    }
    for lost in report.all_lost() {
        line(&mut out, format_args!("lost: {lost}"))?;
    }
    for name in &report.recovered_namespaces {
        line(
            &mut out,
            format_args!("the name of a namespace was lost; it is now called {name}"),
        )?;
    }
    line(
        &mut out,
        format_args!(
            "saved {} keys in {} namespaces, {}, to {}",
            count(report.keys),
            count(report.namespaces),
            bytes(report.bytes),
            arguments.to.display()
        ),
    )?;
    Ok(out.flush()?)
}

pub(crate) fn checkpoint(session: &Session, arguments: &Checkpoint) -> Outcome {
    let store = session.store()?;
    let _expected = interrupt::expect();
    let bar = session.bytes_bar("copying");
    let made = store.checkpoint_with(&arguments.to, follow(&bar));
    bar.finish_and_clear();
    let report = made?;
    session.say(format_args!(
        "Copied {} segments, {}, to {}: {} files linked, {} copied.",
        count(report.segments),
        bytes(report.bytes),
        arguments.to.display(),
        count(report.linked),
        count(report.copied)
    ))
}
