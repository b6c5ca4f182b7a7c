//! Reading namespaces from a file.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::array;
use super::default_ttls::DefaultTtls;
use super::input::Input;
#[cfg(feature = "miniflare")]
use super::miniflare;
use super::progress::{Done, Progress, Seen};
use super::record::{self, Read, Record};
use crate::cli::arguments::{FileFormat, Import};
use crate::cli::destination::Place;
use crate::cli::pair::Pair;
use crate::cli::session::Session;
use crate::cli::writer::{Change, Lifetime, Position, Rules, Tally, Write, Writer};
use crate::common::failure::{Failure, Outcome};
use crate::common::interrupt;
use crate::common::text::count;
use crate::planted::{Planted, planted};

/// Shortest interval between progress notes.
const NOTE_EVERY: Duration = Duration::from_secs(1);

pub(crate) fn import(session: &Session, arguments: &Import) -> Outcome {
    #[cfg(feature = "miniflare")]
    if arguments.miniflare {
        return miniflare::import(session, arguments);
    }
    if arguments.format == FileFormat::Bulk && arguments.namespace.is_none() {
        return Err(Failure::usage(
            "a bulk file does not name a namespace for its keys",
            "name one with -n NAME",
        ));
    }
    import_from(session, arguments, Input::open(&arguments.file, session, "importing")?)
}

pub(super) fn import_from(session: &Session, arguments: &Import, input: Input) -> Outcome {
    let mut progress = Progress::of(session, arguments, input.is_file)?;
    let destination = session.destination(arguments.class)?;
    let _expected = interrupt::expect();
    let skip = progress.done(&destination)?;
    if let Some(done) = &skip {
        let (items, what) = (count(done.items), items_of(arguments));
        session.note(format_args!("Resuming after the first {items} {what}s."));
    }
    let rules = Rules {
        skip_expired: true,
        if_absent: arguments.if_absent,
        workers_kv_limits: arguments.workers_kv_limits,
    };
    let called = format!("{}, {}", input.name, items_of(arguments));
    let importer = Importer {
        session,
        arguments,
        name: input.name.clone(),
        namespaces: HashMap::new(),
        default_ttls: DefaultTtls::default(),
        writer: Writer::new(destination, rules, called.clone()),
        called,
        seen: Seen::default(),
        before: Seen::default(),
        done: Seen::default(),
        skip,
        progress,
        noted: Instant::now(),
    };
    importer.run(input)
}

/// The items of an input.
fn items_of(arguments: &Import) -> &'static str {
    match arguments.format {
        FileFormat::Lines => "line",
        FileFormat::Bulk => "pair",
    }
}

struct Importer<'a> {
    session: &'a Session,
    arguments: &'a Import,
    /// How messages refer to the input, and to its items.
    name: String,
    called: String,
    namespaces: HashMap<String, Place>,
    default_ttls: DefaultTtls,
    writer: Writer,
    seen: Seen,
    /// `seen` without the item being processed.
    before: Seen,
    /// The part that is in the store.
    done: Seen,
    /// Progress of an earlier import, to be skipped.
    skip: Option<Done>,
    progress: Progress<'a>,
    /// Time of the last progress note.
    noted: Instant,
}

impl Importer<'_> {
    fn run(mut self, input: Input) -> Outcome {
        if self.skip.is_none() {
            // Find out now, not after an hour, whether progress can be saved at all.
            self.note()?;
        }
        let read = match self.arguments.format {
            FileFormat::Lines => self.lines(input),
            FileFormat::Bulk => self.bulk(input),
        };
        let read = match read {
            Ok(()) => self.commit(self.seen.clone()),
            // After Ctrl-C, do not make the user wait for pending writes.
            Err(failure) if failure.is_stop() || self.writer.has_failed() => {
                if self.writer.is_idle() {
                    self.done = self.seen.clone();
                }
                Err(failure)
            }
            // The items before the wrong one are good.
            Err(failure) => self.commit(self.before.clone()).and(Err(failure)),
        };
        self.writer.remarks.tell(self.session);
        match read
            .and_then(|()| self.check_whole())
            .and_then(|()| self.set_default_ttls())
        {
            Ok(()) => {
                self.writer.destination().sync()?;
                self.progress.forget();
                self.session.say(self.told())
            }
            Err(failure) => {
                let what = self.give_up()?;
                Err(match failure.is_stop() {
                    true => Failure::stopped(&what),
                    false => failure.having(&what),
                })
            }
        }
    }

    fn lines(&mut self, mut input: Input) -> Outcome {
        input.begin()?;
        let mut line = Vec::new();
        while input.read_line(&mut line)? {
            if self.count(&line)? {
                self.declare_again(&line)?;
            } else if !line.trim_ascii().is_empty() {
                let record = record::read(&line).and_then(|read| self.line(read));
                if let Some(record) = record.map_err(|failure| self.at(failure, &line))? {
                    let write = self.key(record, &mut line)?;
                    self.writer.add(write)?;
                }
            }
            self.look()?;
        }
        Ok(())
    }

    /// The failure with its place in the input.
    fn at(&self, failure: Failure, line: &[u8]) -> Failure {
        if self.seen.items == 1 && line.trim_ascii_start().starts_with(b"[") {
            return Failure::usage(
                format!("{} is not lines of an export, but a JSON array", self.name),
                "import an array for `bulk put` with --format bulk -n NAME",
            );
        }
        let key = record::key_of(line);
        failure.at(Position::of_line(self.seen.items).told(&self.called, key.as_deref()))
    }

    fn bulk(&mut self, input: Input) -> Outcome {
        let namespace = self.named(None)?;
        array::for_each(input, |item| {
            if !self.count(item.text)? {
                let pair = Pair::read(item, &self.called, &mut self.writer.remarks)?;
                self.writer.add(pair.into_write(namespace.clone()))?;
            }
            self.look()
        })
    }

    /// Counts a line or pair; returns whether an earlier import did it.
    fn count(&mut self, item: &[u8]) -> Outcome<bool> {
        self.seen.crc.update(item);
        self.seen.items += 1;
        let Some(skip) = &self.skip else { return Ok(false) };
        if self.seen.items < skip.items {
            return Ok(true);
        }
        if self.seen.items > skip.items {
            return Ok(false);
        }
        if self.seen.crc32() != skip.crc32 && !planted(Planted::ImportAnotherInput) {
            return Err(self.another_input());
        }
        self.seen.section = skip.section;
        self.done = self.seen.clone();
        Ok(true)
    }

    fn another_input(&self) -> Failure {
        Failure::usage(
            format!("{} does not begin with what was imported before", self.name),
            "import from the beginning, without --resume",
        )
    }

    /// Does what a line says, except a put, which is returned.
    fn line(&mut self, read: Read) -> Outcome<Option<Record>> {
        if let Read::End { lines } = read {
            let section = self.seen.section.take();
            if section.is_some_and(|section| section != lines) {
                return Err(Failure::usage(
                    format!(
                        "the export had {} lines, but {} were read",
                        count(lines),
                        count(section.unwrap_or(0))
                    ),
                    "to import a part of an export, leave out its first line",
                ));
            }
            return Ok(None);
        }
        if matches!(read, Read::Header) {
            self.check_whole()?;
            self.seen.section = Some(0);
            return Ok(None);
        }
        if let Some(section) = &mut self.seen.section {
            *section += 1;
        }
        match read {
            Read::Header | Read::End { .. } => Ok(None),
            Read::Namespace {
                name,
                id,
                default_ttl_ms,
            } => self.declare(name, id, default_ttl_ms).map(|()| None),
            Read::Key(record) => Ok(Some(record)),
        }
    }

    /// Checks that the export has its last line, and that all lines imported before were seen.
    fn check_whole(&self) -> Outcome {
        if self.skip.as_ref().is_some_and(|skip| self.seen.items < skip.items) {
            return Err(self.another_input());
        }
        match self.seen.section {
            None => Ok(()),
            Some(_) if planted(Planted::ImportCutOff) => Ok(()),
            Some(_) => Err(Failure::usage(
                format!("{} was cut off: the last line of the export is missing", self.name),
                "",
            )),
        }
    }

    /// Creates a namespace with its exported id, unless it exists; with a new id if that is taken.
    /// A default lifetime is set as keys are put: over one that is there, unless the user wants
    /// those that are absent only.
    fn declare(&mut self, name: String, id: Option<u128>, default_ttl_ms: Option<u64>) -> Outcome {
        if self.arguments.namespace.is_some() {
            return Ok(());
        }
        let ttl = default_ttl_ms.map(Duration::from_millis);
        let destination = self.writer.destination();
        let namespace = destination.declare(&name, id, ttl, self.arguments.if_absent)?;
        self.default_ttls.add(&namespace, ttl);
        if planted(Planted::DefaultTtlBeforeKeys) {
            self.set_default_ttls()?;
        }
        self.namespaces.insert(name, namespace);
        Ok(())
    }

    /// An import that was stopped has set no default lifetimes on a server, so this one does, for
    /// the lines that it skips otherwise.
    fn declare_again(&mut self, line: &[u8]) -> Outcome {
        match DefaultTtls::of_line(line) {
            Some((name, ttl_ms)) if self.writer.destination().is_server() => self.declare(name, None, Some(ttl_ms)),
            _ => Ok(()),
        }
    }

    fn set_default_ttls(&mut self) -> Outcome {
        self.default_ttls
            .set(self.writer.destination(), self.arguments.if_absent)
    }

    /// The namespace named by the user, or else by the input.
    fn named(&mut self, by_input: Option<String>) -> Outcome<Place> {
        let name = self.arguments.namespace.clone().or(by_input);
        let name = name.ok_or_else(|| Failure::usage("the key has no namespace", "name one with -n NAME"))?;
        if let Some(namespace) = self.namespaces.get(&name) {
            return Ok(namespace.clone());
        }
        let namespace = self.writer.destination().namespace(&name)?;
        self.namespaces.insert(name, namespace.clone());
        Ok(namespace)
    }

    /// The put of a line, whose text is of no more use then. An error names the line and the key.
    fn key(&mut self, record: Record, text: &mut Vec<u8>) -> Outcome<Write> {
        let position = Position::of_line(self.seen.items);
        let read = self
            .named(record.namespace)
            .and_then(|namespace| Ok((namespace, record.value.take(text)?)));
        let (namespace, value) = read.map_err(|failure| failure.at(position.told(&self.called, Some(&record.key))))?;
        let lifetime = match record.expiry_ms {
            Some(expiry) => Lifetime::UntilMs(expiry),
            None if planted(Planted::ImportByDefaultTtl) => Lifetime::Default,
            // Exported from a namespace that may have had a default lifetime, too.
            None => Lifetime::Forever,
        };
        Ok(Write {
            position,
            namespace,
            key: record.key,
            change: Change::Put {
                value,
                lifetime,
                metadata: record.metadata,
            },
        })
    }

    /// Commits pending writes; then the input is done up to `done`.
    fn commit(&mut self, done: Seen) -> Outcome {
        self.writer.commit()?;
        self.done = done;
        Ok(())
    }

    /// Called after each line or pair; saves progress now and then.
    fn look(&mut self) -> Outcome {
        self.before = self.seen.clone();
        let is_skipped = self.skip.as_ref().is_some_and(|skip| self.seen.items <= skip.items);
        if is_skipped || !self.writer.is_idle() {
            return Ok(());
        }
        self.done = self.seen.clone();
        if self.noted.elapsed() < NOTE_EVERY {
            return Ok(());
        }
        self.note()
    }

    /// Syncs the writes that are done, then saves progress.
    fn note(&mut self) -> Outcome {
        let destination = self.writer.destination();
        if !destination.is_synced() {
            destination.sync()?;
        }
        self.noted = Instant::now();
        let done = &self.done;
        self.progress.note(destination, done.items, done.crc32(), done.section)
    }

    /// Saves the progress of a failed import, and describes it.
    fn give_up(&mut self) -> Outcome<String> {
        let had = self.skip.as_ref().map_or(0, |done| done.items);
        if self.done.items <= had {
            if self.skip.is_none() {
                self.progress.forget();
            }
            return Ok(match self.writer.tally.done {
                0 if self.skip.is_some() => "nothing more was imported".to_owned(),
                0 => "nothing was imported".to_owned(),
                // The writes before the wrong one in its batch.
                1 => "1 key was imported".to_owned(),
                keys => format!("{} keys were imported", count(keys)),
            });
        }
        self.note()?;
        let how_to_go_on = if self.progress.is_kept() {
            ", and --resume continues after them"
        } else {
            ""
        };
        let (items, what) = (count(self.done.items), items_of(self.arguments));
        Ok(format!("the first {items} {what}s are in the store{how_to_go_on}"))
    }

    /// The final message: number of keys by outcome.
    fn told(&self) -> String {
        let Tally { done, expired, present } = &self.writer.tally;
        let mut told = format!("Imported {} keys.", count(*done));
        if *expired > 0 {
            told += &format!(" {} {}.", count(*expired), self.writer.destination().expired());
        }
        if *present > 0 {
            told += &format!(" {} were there already.", count(*present));
        }
        told
    }
}
