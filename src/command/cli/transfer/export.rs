//! Writing namespaces to a file.

use std::ops::ControlFlow;
use std::path::Path;

use embercask::{Namespace, Page, Store};
use indicatif::ProgressBar;

use super::output::{Left, Output};
use super::record::{self, Read};
use crate::cli::arguments::{Export, FileFormat};
use crate::cli::session::Session;
use crate::common::failure::{Failure, Outcome};
use crate::common::interrupt;
use crate::common::text::{Format, count};
use crate::planted::{Planted, planted};

/// Keys of a page; their values stay where they are until they are written.
const PAGE_KEYS: usize = 1000;

/// Where to resume an export.
enum Place {
    /// Behind the first line.
    Start,
    /// In this namespace; behind its own line if no key is given.
    Namespace { namespace: String, key: Option<Vec<u8>> },
    /// All is written.
    End,
}

pub(crate) fn export(session: &Session, arguments: &Export) -> Outcome {
    let store = session.store()?;
    let namespaces = chosen(&store, &arguments.namespace)?;
    let prefix = Format::Raw.parse(&arguments.prefix)?;
    if arguments.format == FileFormat::Bulk && namespaces.len() != 1 {
        return Err(Failure::usage(
            "a bulk file holds the keys of one namespace",
            "name it by -n NAME, or export with --format lines",
        ));
    }
    if arguments.format == FileFormat::Bulk && arguments.resume {
        return Err(Failure::usage(
            "a bulk file cannot be gone on with",
            "export with --format lines",
        ));
    }
    let bar = session.keys_bar("exporting");
    if !bar.is_hidden() {
        for namespace in &namespaces {
            bar.inc_length(namespace.list().prefix(&prefix).count()?);
        }
    }
    let header = record::header_line(&store, &arguments.namespace, &prefix)?;
    let (output, place) = if arguments.resume {
        resume(&arguments.file, &header)?
    } else {
        (Output::create(&arguments.file)?, None)
    };
    let _expected = interrupt::expect();
    let mut exporter = Exporter {
        session,
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
        // It could not be resumed.
        output.discard();
        exported.map(drop)?;
        return Err(Failure::stopped("nothing was exported"));
    }
    if exported?.is_break() {
        return Err(Failure::stopped(match output.pause()? {
            true => "--resume goes on where it stopped",
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

/// Goes on with what an earlier export of the same things has left, and says how many lines are
/// there behind the first, and where it stopped; with nothing if there is nothing.
fn resume(file: &Path, header: &[u8]) -> Outcome<(Output, Option<(u64, Place)>)> {
    let is_line = |line: &[u8]| record::read(line).is_ok();
    let Some(left) = Left::find(file, is_line)? else {
        return Ok((Output::create(file)?, None));
    };
    if left.is_less_than(header) {
        return Ok((Output::create(file)?, None));
    }
    let foreign = || {
        Failure::usage(
            "what is there is no export of the same store, namespaces and prefix",
            "begin anew, without --resume",
        )
    };
    if left.lines.first.as_deref() != Some(header) && !planted(Planted::ResumeAnotherExport) {
        return Err(foreign());
    }
    let last = left.lines.last.as_deref().ok_or_else(foreign)?;
    let place = match record::read(last).map_err(|_| foreign())? {
        Read::Header => Place::Start,
        Read::End { .. } => Place::End,
        Read::Namespace { name, .. } => Place::Namespace {
            namespace: name,
            key: None,
        },
        Read::Key(record) => Place::Namespace {
            namespace: record.namespace.unwrap_or_default(),
            key: Some(record.key),
        },
    };
    let lines = left.lines.count - 1;
    Ok((left.resume()?, Some((lines, place))))
}

/// The namespaces of these names, or all, by name.
fn chosen(store: &Store, names: &[String]) -> Outcome<Vec<Namespace>> {
    let mut names: Vec<String> = if names.is_empty() {
        store.namespaces()?.into_iter().map(|info| info.name).collect()
    } else {
        names.to_vec()
    };
    names.sort();
    names.dedup();
    names.iter().map(|name| Ok(store.open_namespace(name)?)).collect()
}

struct Exporter<'a> {
    session: &'a Session,
    output: Output,
    bar: &'a ProgressBar,
    prefix: &'a [u8],
    format: FileFormat,
    /// Lines in the file behind the first.
    lines: u64,
    /// Keys that were written in this run.
    keys: u64,
    /// Keys that were left out, since their records are damaged.
    damaged: u64,
}

impl Exporter<'_> {
    /// Writes all that is not in the file yet, unless it is stopped.
    fn all(&mut self, header: &[u8], namespaces: &[Namespace], place: Option<Place>) -> Outcome<ControlFlow<()>> {
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
            FileFormat::Lines => self.output.write(&record::end_line(self.lines)?)?,
            FileFormat::Bulk => self.output.write(b"\n]\n")?,
        }
        Ok(ControlFlow::Continue(()))
    }

    fn line(&mut self, line: &[u8]) -> Outcome {
        self.lines += 1;
        self.output.write(line)
    }

    /// All keys of a namespace, or those behind the place.
    fn namespace(&mut self, namespace: &Namespace, place: Option<&Place>) -> Outcome<ControlFlow<()>> {
        let name = namespace.name();
        let mut list = namespace.list().prefix(self.prefix).with_values().limit(PAGE_KEYS);
        match place {
            // It is in the file already.
            Some(Place::Namespace { namespace, .. }) if *namespace > name => return Ok(ControlFlow::Continue(())),
            Some(Place::Namespace { namespace, key }) if *namespace == name => {
                list = match key {
                    Some(key) => list.start_after(key),
                    None => list,
                };
            }
            _ if self.format == FileFormat::Lines => self.line(&record::namespace_line(namespace)?)?,
            _ => {}
        }
        loop {
            let page = list.page()?;
            if self.page(&name, &page)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            match page.cursor() {
                Some(cursor) => list = list.cursor(cursor),
                None => return Ok(ControlFlow::Continue(())),
            }
        }
    }

    fn page(&mut self, namespace: &str, page: &Page) -> Outcome<ControlFlow<()>> {
        for entry in page.iter() {
            if interrupt::is_requested() {
                return Ok(ControlFlow::Break(()));
            }
            if let Some(error) = entry.error() {
                self.damaged += 1;
                self.bar.suspend(|| self.session.tell_damage(error));
                continue;
            }
            match self.format {
                FileFormat::Lines => self.line(&record::key_line(namespace, &entry)?)?,
                FileFormat::Bulk => {
                    self.output.write(if self.keys == 0 { b"\n" } else { b",\n" })?;
                    let pair = record::bulk_pair(&entry)?;
                    self.output.write(&pair)?;
                }
            }
            self.keys += 1;
        }
        self.bar.inc(page.len() as u64);
        Ok(ControlFlow::Continue(()))
    }
}
