//! Writing namespaces to a file.

use std::ops::ControlFlow;

use embercask::{Namespace, Page, Store};
use indicatif::ProgressBar;

use super::record::{self, Read};
use super::stream::Output;
use crate::cli::arguments::{Export, FileFormat};
use crate::cli::failure::{Failure, Outcome};
use crate::cli::interrupt;
use crate::cli::session::Session;
use crate::cli::text::{Format, count};

/// Keys of a page; their values stay where they are until they are written.
const PAGE_KEYS: usize = 1000;

/// Where an export that is gone on with goes on.
struct Place {
    namespace: String,
    /// None behind the line of the namespace itself.
    key: Option<Vec<u8>>,
}

pub(crate) fn export(session: &Session, arguments: &Export) -> Outcome {
    interrupt::expect();
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
    for namespace in &namespaces {
        bar.inc_length(namespace.list().prefix(&prefix).count()?);
    }
    let (mut output, place) = if arguments.resume {
        let (output, last_line) = Output::resume(&arguments.file)?;
        (output, last_line.as_deref().map(place).transpose()?)
    } else {
        (Output::create(&arguments.file)?, None)
    };
    let mut exporter = Exporter {
        output: &mut output,
        bar: &bar,
        prefix: &prefix,
        format: arguments.format,
        keys: 0,
    };
    let mut flow = ControlFlow::Continue(());
    exporter.begin()?;
    for namespace in &namespaces {
        flow = exporter.namespace(namespace, place.as_ref())?;
        if flow.is_break() {
            break;
        }
    }
    if flow.is_continue() {
        exporter.end()?;
    }
    let keys = exporter.keys;
    bar.finish_and_clear();
    if flow.is_break() {
        output.pause()?;
        let what = match arguments.format {
            FileFormat::Lines => "--resume goes on where it stopped",
            FileFormat::Bulk => "a bulk file cannot be gone on with",
        };
        return Err(Failure::stopped(what));
    }
    output.finish()?;
    session.note(format_args!("Exported {} keys.", count(keys)));
    Ok(())
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

/// What the last line of an export stands for.
fn place(line: &[u8]) -> Outcome<Place> {
    let wrong = |_| {
        Failure::usage(
            "the last line of what is there is none of an export",
            "begin anew, without --resume",
        )
    };
    match record::read(line).map_err(wrong)? {
        Read::Namespace { name, .. } => Ok(Place {
            namespace: name,
            key: None,
        }),
        Read::Key(record) => Ok(Place {
            namespace: record.namespace.unwrap_or_default(),
            key: Some(record.key),
        }),
    }
}

struct Exporter<'a> {
    output: &'a mut Output,
    bar: &'a ProgressBar,
    prefix: &'a [u8],
    format: FileFormat,
    /// Written so far.
    keys: u64,
}

impl Exporter<'_> {
    fn begin(&mut self) -> Outcome {
        match self.format {
            FileFormat::Lines => Ok(()),
            FileFormat::Bulk => self.output.write(b"["),
        }
    }

    fn end(&mut self) -> Outcome {
        match self.format {
            FileFormat::Lines => Ok(()),
            FileFormat::Bulk => self.output.write(b"\n]\n"),
        }
    }

    /// All keys of a namespace, or those behind the place.
    fn namespace(&mut self, namespace: &Namespace, place: Option<&Place>) -> Outcome<ControlFlow<()>> {
        let name = namespace.name();
        let mut list = namespace.list().prefix(self.prefix).with_values().limit(PAGE_KEYS);
        match place {
            // It is in the file already.
            Some(place) if place.namespace > name => return Ok(ControlFlow::Continue(())),
            Some(place) if place.namespace == name => {
                if let Some(key) = &place.key {
                    list = list.start_after(key);
                }
            }
            _ if self.format == FileFormat::Lines => {
                let line = record::namespace_line(namespace)?;
                self.output.write(&line)?;
            }
            _ => {}
        }
        loop {
            if interrupt::is_requested() {
                return Ok(ControlFlow::Break(()));
            }
            let page = list.page()?;
            self.page(&name, &page)?;
            match page.cursor() {
                Some(cursor) => list = list.cursor(cursor),
                None => return Ok(ControlFlow::Continue(())),
            }
        }
    }

    fn page(&mut self, namespace: &str, page: &Page) -> Outcome {
        for entry in page.iter() {
            match self.format {
                FileFormat::Lines => {
                    let line = record::key_line(namespace, &entry)?;
                    self.output.write(&line)?;
                }
                FileFormat::Bulk => {
                    self.output.write(if self.keys == 0 { b"\n" } else { b",\n" })?;
                    let pair = record::bulk_pair(&entry)?;
                    self.output.write(&pair)?;
                }
            }
            self.keys += 1;
        }
        self.bar.inc(page.len() as u64);
        Ok(())
    }
}
