//! Reading namespaces from a file.

use std::collections::HashMap;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use embercask::{Durability, Namespace, PutOptions, Store};
use serde::{Deserialize, Serialize};

use super::array;
use super::record::{self, Read, Record};
use super::stream::Input;
use crate::cli::arguments::{FileFormat, Import};
use crate::cli::bulk::Pair;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::interrupt;
use crate::cli::session::Session;
use crate::cli::text::count;

/// Writes of a batch, and bytes of it.
const BATCH_WRITES: usize = 1000;
const BATCH_BYTES: usize = 4 << 20;
/// How often at most it is noted how far the import has come.
const NOTE_EVERY: Duration = Duration::from_secs(1);
/// A key that expires so soon is as good as expired: a put of it might come too late.
const EXPIRES_SOON_MS: u64 = 1000;

pub(crate) fn import(session: &Session, arguments: &Import) -> Outcome {
    interrupt::expect();
    if arguments.format == FileFormat::Bulk && arguments.namespace.is_none() {
        return Err(Failure::usage(
            "a bulk file does not say into which namespace its keys go",
            "name it by -n NAME",
        ));
    }
    let input = Input::open(&arguments.file, session, "importing")?;
    let place = Place::of(arguments)?;
    let mut importer = Importer {
        store: session.store_or_new()?,
        arguments,
        namespaces: HashMap::new(),
        pending: Vec::new(),
        pending_bytes: 0,
        seen: 0,
        done: 0,
        skip: place.done()?,
        place,
        noted: Instant::now(),
        tally: Tally::default(),
    };
    if importer.skip > 0 {
        session.note(format_args!(
            "Going on behind the first {} lines.",
            count(importer.skip)
        ));
    }
    let read = match arguments.format {
        FileFormat::Lines => importer.lines(input),
        FileFormat::Bulk => importer.bulk(input),
    };
    let told = importer.finish(read)?;
    session.say(told)
}

/// Where it is noted how far an import has come.
struct Place {
    file: Option<PathBuf>,
    resume: bool,
}

#[derive(Serialize, Deserialize)]
struct Done {
    /// Lines or pairs of the file that are in the store, from the first one on.
    done: u64,
}

impl Place {
    fn of(arguments: &Import) -> Outcome<Place> {
        let standard = arguments.file == Path::new("-");
        let file = arguments.progress_file.clone().or_else(|| {
            let mut name = arguments.file.clone().into_os_string();
            name.push(".progress");
            (!standard).then(|| name.into())
        });
        if arguments.resume && file.is_none() {
            return Err(Failure::usage(
                "it is not known how far an import of standard input had come",
                "keep it in a file from the first time on, by --progress-file FILE",
            ));
        }
        Ok(Place {
            file,
            resume: arguments.resume,
        })
    }

    /// How much an earlier import has done.
    fn done(&self) -> Outcome<u64> {
        let Some(file) = self.file.as_deref().filter(|_| self.resume) else {
            return Ok(0);
        };
        let read = match std::fs::read(file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
            read => read.map_err(|error| Failure::file("read", file.display(), &error))?,
        };
        let done: Done = serde_json::from_slice(&read).map_err(|error| {
            Failure::usage(
                format!("{} does not say how far an import has come: {error}", file.display()),
                "remove it, and begin anew",
            )
        })?;
        Ok(done.done)
    }

    fn note(&self, done: u64) -> Outcome {
        let Some(file) = &self.file else { return Ok(()) };
        let mut next = file.clone().into_os_string();
        next.push(".next");
        let next = PathBuf::from(next);
        std::fs::write(&next, serde_json::to_vec(&Done { done })?)
            .and_then(|()| std::fs::rename(&next, file))
            .map_err(|error| Failure::file("write", file.display(), &error))
    }

    fn forget(&self) {
        if let Some(file) = &self.file {
            // If it stays, the next import with --resume finds nothing to do.
            let _ = std::fs::remove_file(file);
        }
    }
}

/// What became of the keys.
#[derive(Default)]
struct Tally {
    written: u64,
    expired: u64,
    present: u64,
}

struct Importer<'a> {
    store: Store,
    arguments: &'a Import,
    namespaces: HashMap<String, Namespace>,
    pending: Vec<(Namespace, Record)>,
    pending_bytes: usize,
    /// Lines or pairs read so far, and how many of them an earlier import has done.
    seen: u64,
    skip: u64,
    /// How many of them are in the store.
    done: u64,
    place: Place,
    /// When it was last noted how far this has come.
    noted: Instant,
    tally: Tally,
}

impl Importer<'_> {
    fn lines(&mut self, input: Input) -> Outcome {
        let Input { name, mut reader } = input;
        let mut line = Vec::new();
        loop {
            line.clear();
            let length = reader
                .read_until(b'\n', &mut line)
                .map_err(|error| Failure::file("read", &name, &error))?;
            if length == 0 {
                return Ok(());
            }
            if self.is_to_be_read() && !line.trim_ascii().is_empty() {
                self.line(&line)
                    .map_err(|failure| at(failure, &name, "line", self.seen))?;
            }
        }
    }

    fn bulk(&mut self, input: Input) -> Outcome {
        let Input { name, reader } = input;
        array::for_each(&name, reader, |number, pair: Pair| {
            if !self.is_to_be_read() {
                return Ok(());
            }
            self.pair(pair).map_err(|failure| at(failure, &name, "pair", number))
        })
    }

    /// Counts a line or pair. False if an earlier import has done it.
    fn is_to_be_read(&mut self) -> bool {
        self.seen += 1;
        self.seen > self.skip
    }

    fn line(&mut self, line: &[u8]) -> Outcome {
        match record::read(line)? {
            Read::Namespace { name, id } => self.declare(name, id),
            Read::Key(record) => self.add(record),
        }
    }

    fn pair(&mut self, pair: Pair) -> Outcome {
        if let Some(unknown) = pair.unknown.keys().next() {
            return Err(Failure::usage(format!("unknown property \"{unknown}\""), ""));
        }
        let after = |seconds: u64| now_ms().saturating_add(seconds.saturating_mul(1000));
        let expiry_ms = match (pair.expiration, pair.expiration_ttl) {
            (_, Some(seconds)) => Some(after(seconds)),
            (Some(seconds), None) => Some(seconds.saturating_mul(1000)),
            (None, None) => None,
        };
        self.add(Record {
            namespace: None,
            value: pair.value()?,
            key: pair.key.into_bytes(),
            expiry_ms,
            metadata: pair.metadata.map(|json| json.get().as_bytes().to_vec()),
        })
    }

    /// A namespace comes into being, with the id it had, unless it is there.
    fn declare(&mut self, name: String, id: Option<u128>) -> Outcome {
        if self.arguments.namespace.is_some() {
            return Ok(());
        }
        let is_there = self.store.namespaces()?.iter().any(|info| info.name == name);
        let namespace = match id {
            Some(id) if !is_there && self.store.namespace_by_id(id)?.is_none() => {
                self.store.create_namespace_with_id(&name, id)?
            }
            _ => self.store.namespace(&name)?,
        };
        self.namespaces.insert(name, namespace);
        Ok(())
    }

    fn add(&mut self, record: Record) -> Outcome {
        let name = self.arguments.namespace.as_ref().or(record.namespace.as_ref());
        let name =
            name.ok_or_else(|| Failure::usage("it does not say in which namespace the key is", "name one by -n NAME"))?;
        let namespace = match self.namespaces.get(name) {
            Some(namespace) => namespace.clone(),
            None => {
                let namespace = self.store.namespace(name)?;
                self.namespaces.insert(name.clone(), namespace.clone());
                namespace
            }
        };
        let bytes = record.key.len() + record.value.len();
        if bytes > BATCH_BYTES {
            // It is written alone: a batch might not hold it.
            self.commit(self.seen - 1)?;
        }
        self.pending_bytes += bytes;
        self.pending.push((namespace, record));
        if self.pending.len() >= BATCH_WRITES || self.pending_bytes >= BATCH_BYTES {
            self.commit(self.seen)?;
        }
        Ok(())
    }

    /// Writes what is pending, as one: then so much of the file is in the store.
    fn commit(&mut self, done: u64) -> Outcome {
        let earliest = now_ms() + EXPIRES_SOON_MS;
        let durability = self.arguments.class.durability();
        let is_alone = self.pending.len() == 1;
        let mut batch = self.store.batch().durability(durability);
        for (namespace, record) in self.pending.drain(..) {
            if record.expiry_ms.is_some_and(|expiry| expiry < earliest) {
                self.tally.expired += 1;
                continue;
            }
            // Nobody else writes to the store meanwhile.
            if self.arguments.if_absent && namespace.contains(&record.key)? {
                self.tally.present += 1;
                continue;
            }
            let mut options = PutOptions::new();
            if let Some(expiry) = record.expiry_ms {
                options = options.expires_at_ms(expiry);
            }
            if let Some(metadata) = record.metadata {
                options = options.metadata(metadata);
            }
            self.tally.written += 1;
            if is_alone {
                namespace.put_with(&record.key, &record.value, options.durability(durability))?;
            } else {
                batch = batch.put_with(&namespace, &record.key, &record.value, options);
            }
        }
        self.pending_bytes = 0;
        batch.commit()?;
        self.done = done;
        if self.noted.elapsed() >= NOTE_EVERY {
            self.note()?;
        }
        interrupt::check("--resume goes on where it stopped")
    }

    /// Notes how far this has come, once all of that is safe.
    fn note(&mut self) -> Outcome {
        if self.arguments.class.durability() != Durability::Sync {
            self.store.sync()?;
        }
        self.noted = Instant::now();
        self.place.note(self.done)
    }

    /// Writes the rest, and says what became of the keys; or notes how far an import has come that did not end well.
    fn finish(mut self, read: Outcome) -> Outcome<String> {
        match read.and_then(|()| self.commit(self.seen)) {
            Ok(()) => {
                self.store.sync()?;
                self.place.forget();
            }
            Err(failure) => {
                if failure.is_stop() && self.done > self.skip {
                    self.note()?;
                }
                return Err(failure);
            }
        }
        let Tally {
            written,
            expired,
            present,
        } = self.tally;
        let mut told = format!("Imported {} keys.", count(written));
        if expired > 0 {
            told += &format!(" {} had expired.", count(expired));
        }
        if present > 0 {
            told += &format!(" {} were there already.", count(present));
        }
        Ok(told)
    }
}

/// Says in which line a failure was.
fn at(failure: Failure, name: &str, what: &str, number: u64) -> Failure {
    match failure {
        Failure::Told { message, hint, status } if status == crate::cli::failure::status::USAGE => Failure::Told {
            message: format!("{name}, {what} {number}: {message}"),
            hint,
            status,
        },
        failure => failure,
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis().try_into().unwrap_or(u64::MAX)
}
