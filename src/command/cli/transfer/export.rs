//! Writing namespaces to a file.

use std::ops::ControlFlow;
use std::path::Path;

use indicatif::ProgressBar;

use super::compression::Compression;
use super::left::Left;
use super::lines;
use super::output::Output;
use super::record::Place;
use super::source::{Exported, Item, Moment, Source};
use crate::cli::arguments::{Export, FileFormat};
use crate::cli::session::Session;
use crate::common::failure::{Failure, Outcome};
use crate::common::interrupt;
use crate::common::parse::Format;
use crate::common::text::count;
use crate::planted::{Planted, planted};

pub(crate) fn export(session: &Session, arguments: &Export) -> Outcome {
    export_from(session, arguments, &Moment::of(session.reading()?)?)
}

/// Exports from any source.
pub(crate) fn export_from(session: &Session, arguments: &Export, source: &dyn Source) -> Outcome {
    Compression::to_write(&arguments.file)?;
    let namespaces = source.namespaces(&arguments.namespace)?;
    let prefix = Format::Raw.parse(&arguments.prefix)?;
    if arguments.format == FileFormat::Bulk {
        check_bulk(namespaces.len(), arguments.resume)?;
    }
    let bar = session.keys_bar("exporting");
    if !bar.is_hidden() {
        for namespace in &namespaces {
            bar.inc_length(source.count(namespace, &prefix)?.unwrap_or(0));
        }
    }
    let header = lines::header_line(source.identity(), &arguments.namespace, &prefix)?;
    let (output, place) = if arguments.resume {
        resume(&arguments.file, &header)?
    } else {
        (Output::create(&arguments.file)?, None)
    };
    let _expected = interrupt::expect();
    let mut exporter = Exporter {
        session,
        source,
        output,
        bar: &bar,
        prefix: &prefix,
        format: arguments.format,
        lines: place.as_ref().map_or(0, |(lines, _)| *lines),
        keys: 0,
        damaged: 0,
    };
    let exported = exporter.all(&header, &namespaces, place.map(|(_, place)| place));
    let Exporter {
        mut output,
        keys,
        damaged,
        ..
    } = exporter;
    bar.finish_and_clear();
    let is_done = matches!(exported, Ok(ControlFlow::Continue(())));
    if !is_done && arguments.format == FileFormat::Bulk {
        // A bulk file cannot be resumed.
        output.discard();
        exported.map(drop)?;
        return Err(Failure::stopped("nothing was exported"));
    }
    if kept(&mut output, exported)?.is_break() {
        return Err(Failure::stopped(match output.pause()? {
            true => "--resume continues where it stopped",
            false => "the rest was not exported",
        }));
    }
    output.finish()?;
    session.note(format_args!("Exported {} keys.", count(keys)));
    if damaged > 0 {
        return Err(Failure::damaged_keys(
            damaged,
            "they were not exported; all others were",
        ));
    }
    Ok(())
}

/// Whether an export has gone to its end; one that has failed can be resumed.
fn kept(output: &mut Output, exported: Outcome<ControlFlow<()>>) -> Outcome<ControlFlow<()>> {
    exported.or_else(|failure| match output.pause() {
        // A request to a server was given up for it.
        _ if failure.is_stop() => Ok(ControlFlow::Break(())),
        Ok(true) => Err(failure.having("--resume continues where it stopped")),
        _ => Err(failure),
    })
}

/// Refuses what a bulk file cannot be.
fn check_bulk(namespaces: usize, resume: bool) -> Outcome {
    if namespaces != 1 {
        return Err(Failure::usage(
            "a bulk file holds the keys of one namespace",
            "name one with -n NAME, or export with --format lines",
        ));
    }
    if resume {
        return Err(Failure::usage(
            "an export to a bulk file cannot be resumed",
            "export with --format lines",
        ));
    }
    Ok(())
}

/// Resumes an earlier export of the same store, namespaces and prefix. Returns the number of lines
/// after the first, and where it stopped; starts a new export if there is nothing to resume.
fn resume(file: &Path, header: &[u8]) -> Outcome<(Output, Option<(u64, Place)>)> {
    let Some(mut left) = Left::find(file, Place::after)? else {
        return Ok((Output::create(file)?, None));
    };
    if left.is_less_than(header) {
        return Ok((Output::create(file)?, None));
    }
    let foreign = || {
        Failure::usage(
            "the partial file is not an export of the same store, namespaces and prefix",
            "export from the beginning, without --resume",
        )
    };
    if left.lines.first.as_deref() != Some(header) && !planted(Planted::ResumeAnotherExport) {
        return Err(foreign());
    }
    let place = left.lines.last.take().ok_or_else(foreign)?;
    let lines = left.lines.count - 1;
    Ok((left.resume()?, Some((lines, place))))
}

struct Exporter<'a> {
    session: &'a Session,
    source: &'a dyn Source,
    output: Output,
    bar: &'a ProgressBar,
    prefix: &'a [u8],
    format: FileFormat,
    /// Lines in the file after the first.
    lines: u64,
    /// Keys written by this run.
    keys: u64,
    /// Keys skipped because their records are damaged.
    damaged: u64,
}

impl Exporter<'_> {
    /// Writes everything that is not in the file yet, unless stopped.
    fn all(&mut self, header: &[u8], namespaces: &[Exported], place: Option<Place>) -> Outcome<ControlFlow<()>> {
        match self.format {
            FileFormat::Lines if place.is_none() => self.output.write(header)?,
            FileFormat::Lines => {}
            FileFormat::Bulk => self.output.write(b"[")?,
        }
        if matches!(place, Some(Place::End)) {
            return Ok(ControlFlow::Continue(()));
        }
        for namespace in namespaces {
            if self.namespace(namespace, place.as_ref())?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        match self.format {
            FileFormat::Lines => self.output.write(&lines::end_line(self.lines)?)?,
            FileFormat::Bulk => self.output.write(b"\n]\n")?,
        }
        Ok(ControlFlow::Continue(()))
    }

    fn line(&mut self, line: &[u8]) -> Outcome {
        self.lines += 1;
        self.output.write(line)
    }

    /// Writes the keys of a namespace, or those after the place.
    fn namespace(&mut self, namespace: &Exported, place: Option<&Place>) -> Outcome<ControlFlow<()>> {
        let name = &namespace.name;
        let mut after = None;
        match place {
            // The namespace is in the file already.
            Some(Place::Namespace { namespace, .. }) if namespace > name => return Ok(ControlFlow::Continue(())),
            Some(Place::Namespace { namespace, key }) if namespace == name => after = key.as_deref(),
            _ if self.format == FileFormat::Lines => self.line(&lines::namespace_line(namespace)?)?,
            _ => {}
        }
        let (source, prefix) = (self.source, self.prefix);
        source.entries(namespace, prefix, after, &mut |item| self.item(name, item))
    }

    fn item(&mut self, namespace: &str, item: Item<'_>) -> Outcome<ControlFlow<()>> {
        if interrupt::is_requested() {
            return Ok(ControlFlow::Break(()));
        }
        self.bar.inc(1);
        let entry = match item {
            Item::Entry(entry) => entry,
            Item::Unreadable(why) => {
                self.damaged += 1;
                self.bar.suspend(|| self.session.tell_damage(why));
                return Ok(ControlFlow::Continue(()));
            }
        };
        match self.format {
            FileFormat::Lines => {
                self.lines += 1;
                lines::write_key_line(&mut self.output, namespace, &entry)?;
            }
            FileFormat::Bulk => {
                let before: &[u8] = if self.keys == 0 { b"\n" } else { b",\n" };
                lines::write_bulk_pair(&mut self.output, before, &entry)?;
            }
        }
        self.keys += 1;
        Ok(ControlFlow::Continue(()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use embercask::Store;

    use super::*;

    /// In a shell the store is one that writes, and other threads may write meanwhile.
    #[test]
    fn an_export_is_of_one_moment_across_namespaces() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::in_memory().unwrap();
        let (first, second) = (store.namespace("A").unwrap(), store.namespace("B").unwrap());
        let write = |number: u64| {
            let mut batch = store.batch();
            batch.put(&first, "key", number.to_string());
            batch.put(&second, "key", number.to_string()).commit().unwrap();
        };
        write(0);
        let export_values = |file: &Path| {
            let arguments = Export {
                file: file.to_owned(),
                namespace: Vec::new(),
                prefix: "".into(),
                format: FileFormat::Lines,
                resume: false,
            };
            export(&Session::of_store(store.clone()), &arguments)
                .map_err(|_| "it fails")
                .unwrap();
            let text = std::fs::read_to_string(file).unwrap();
            let values = text.lines().filter_map(|line| line.split_once("\"value\":"));
            values.map(|(_, value)| value.to_owned()).collect::<Vec<_>>()
        };
        let stop = AtomicBool::new(false);
        let exported = std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut number = 0;
                while !stop.load(Ordering::Acquire) {
                    number += 1;
                    write(number);
                }
            });
            let mut all: Vec<Vec<String>> = Vec::new();
            while all.len() < 100 || all.first() == all.last() {
                all.push(export_values(&directory.path().join(all.len().to_string())));
            }
            stop.store(true, Ordering::Release);
            all
        });
        for values in &exported {
            assert!(values.len() == 2 && values[0] == values[1], "{values:?}");
        }
    }
}
