//! The bodies of the fuzz targets for exported and imported files, and the references they compare
//! with: a second reader of lines, and a model of an import.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a fuzz target reports a finding by a panic"
)]

mod export;
mod lines;
mod resume;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use embercask::Store;
use embercask::storage::MemStorage;

use super::import::import_from;
use super::input::Input;
use crate::cli::arguments::{Class, FileFormat, Import};
use crate::cli::fuzzing::Dribble;
use crate::cli::session::Session;
use crate::common::failure::Outcome;
use crate::common::fuzzing::{Kept, Keys, content, open, told};
use embercask::testing::input::Input as Bytes;
use lines::{Line, Unclear, read};

pub use export::export_resume;
pub use resume::import_resume;

/// The namespace that exists before an import, and that `-n` names.
const NAMESPACE: &str = "N";

/// Lines of any bytes, imported a few bytes at a time: the store has the content that a second
/// reader finds, up to the first wrong line, which the failure names. An export of it imports to
/// the same content.
pub fn import_lines(data: &[u8]) {
    let mut input = Bytes::new(data);
    let (how, step) = (input.u8(), input.u8());
    let text = input.rest();
    let (store, mut model) = prepared(&MemStorage::new());
    let arguments = arguments(how, None, false);
    let Ok(expected) = model.import(text, &arguments, 0, None) else {
        return;
    };
    let done = run(&store, &arguments, text, step, None);
    check(done, &expected);
    model.check(&store);
    if how & 4 != 0 {
        export::round_trip(&store);
    }
}

fn arguments(how: u8, progress_file: Option<PathBuf>, resume: bool) -> Import {
    Import {
        file: "-".into(),
        namespace: (how & 1 != 0).then(|| NAMESPACE.to_owned()),
        format: FileFormat::Lines,
        if_absent: how & 2 != 0,
        workers_kv_limits: false,
        #[cfg(feature = "miniflare")]
        miniflare: false,
        #[cfg(feature = "miniflare")]
        name: Vec::new(),
        resume,
        progress_file,
        class: Class::default(),
    }
}

fn run(store: &Store, arguments: &Import, text: &[u8], step: u8, fails_at: Option<usize>) -> Outcome {
    let session = Session::of_store(store.clone());
    let input = Input::of_reader(Dribble::new(text, step, fails_at));
    import_from(&session, arguments, input)
}

/// How an import ends.
#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    Whole,
    /// At this line, with the number of lines before it that are known to be done.
    At(u64, Option<u64>),
    CutOff,
    /// The text is a JSON array.
    Array,
    /// The text is in another encoding.
    Encoding,
    /// The input does not begin with the lines imported before.
    Another,
}

fn check(done: Outcome, expected: &End) {
    let failure = match done {
        Ok(()) => return assert_eq!(*expected, End::Whole),
        Err(failure) => failure,
    };
    let message = told(&failure);
    match expected {
        End::Whole => panic!("{message}"),
        End::At(line, before) => {
            let place = format!("input, line {line}");
            let rest = message.strip_prefix(&place);
            assert!(
                rest.is_some_and(|rest| rest.starts_with([':', ','])),
                "{message} is not at {place}"
            );
            let first = before.filter(|before| *before > 0);
            if let Some(before) = first {
                let done = format!(
                    "the first {} lines are in the store",
                    crate::common::text::count(before)
                );
                assert!(message.contains(&done), "{message} does not say that {done}");
            }
        }
        End::CutOff => assert!(message.contains("was cut off"), "{message}"),
        End::Encoding => assert!(message.contains("not UTF-8"), "{message}"),
        End::Array => assert!(message.contains("but a JSON array"), "{message}"),
        End::Another => assert!(
            message.contains("does not begin with what was imported before"),
            "{message}"
        ),
    }
}

/// A store with a few keys, and a model of it.
fn prepared(disk: &MemStorage) -> (Store, Model) {
    let store = open(disk);
    let namespace = store.create_namespace(NAMESPACE).unwrap();
    let mut keys = Keys::new();
    for key in ["a", "b"] {
        namespace.put(key, "old").unwrap();
        let value = b"old".to_vec();
        keys.insert(
            key.into(),
            Kept {
                value,
                ..Kept::default()
            },
        );
    }
    let model = Model {
        namespaces: [(NAMESPACE.to_owned(), keys)].into(),
        ids: BTreeMap::new(),
        default_ttls_ms: BTreeMap::new(),
    };
    (store, model)
}

/// How the lines of an import are read, and what they say so far.
struct Reading<'a> {
    arguments: &'a Import,
    /// Lines that an earlier import has done.
    skipped: u64,
    /// Lines of an export that has not ended.
    section: Option<u64>,
    /// Line, namespace, key and what it is given.
    writes: Vec<(u64, String, Vec<u8>, Kept)>,
}

/// The expected content of a store.
#[derive(Clone)]
struct Model {
    namespaces: BTreeMap<String, Keys>,
    /// The namespaces whose ids come from a file.
    ids: BTreeMap<u128, String>,
    /// Of the namespaces that have one.
    default_ttls_ms: BTreeMap<String, u64>,
}

/// The default lifetimes of the namespaces that have one.
fn default_ttls_ms(store: &Store) -> BTreeMap<String, u64> {
    let names = store.namespaces().unwrap().into_iter().map(|info| info.name);
    let with_ttl = names.filter_map(|name| {
        let ttl = store.open_namespace(&name).unwrap().default_ttl()?;
        Some((name, ttl.as_millis() as u64))
    });
    with_ttl.collect()
}

impl Model {
    fn check(&self, store: &Store) {
        assert_eq!(content(store), self.namespaces);
        assert_eq!(default_ttls_ms(store), self.default_ttls_ms);
        for (id, name) in &self.ids {
            let namespace = store.namespace_by_id(*id).unwrap();
            assert_eq!(namespace.map(|namespace| namespace.name()).as_ref(), Some(name));
        }
    }

    /// Imports the lines after the first `skipped`; `section` is how many of the skipped ones
    /// belong to an export that has not ended.
    fn import(&mut self, text: &[u8], arguments: &Import, skipped: u64, section: Option<u64>) -> Result<End, Unclear> {
        let Some(text) = unmarked(text) else {
            return Ok(End::Encoding);
        };
        let mut reading = Reading {
            arguments,
            skipped,
            section,
            writes: Vec::new(),
        };
        let mut end = self.read(text, &mut reading)?;
        let mut written = std::collections::BTreeSet::new();
        for (line, namespace, key, kept) in reading.writes {
            // A key that expires within a second counts as expired.
            if kept
                .expiry_ms
                .is_some_and(|expiry| expiry < crate::common::fuzzing::NOW_MS + 1000)
            {
                continue;
            }
            let keys = self.namespaces.get_mut(&namespace).unwrap();
            if arguments.if_absent && (keys.contains_key(&key) || !written.insert((namespace, key.clone()))) {
                continue;
            }
            if !kept.is_good(&key) {
                end = End::At(line, None);
                break;
            }
            keys.insert(key, kept);
        }
        Ok(end)
    }

    /// Creates namespaces, and collects the writes.
    fn read(&mut self, text: &[u8], reading: &mut Reading<'_>) -> Result<End, Unclear> {
        let (arguments, skipped) = (reading.arguments, reading.skipped);
        for (number, line) in (1..).zip(text.split_inclusive(|byte| *byte == b'\n')) {
            if number <= skipped || line.trim_ascii().is_empty() {
                continue;
            }
            let wrong = Ok(End::At(number, Some(number - 1)).filter_resumed(skipped));
            let Some(line) = read(line)? else {
                let is_array = number == 1 && line.trim_ascii_start().first() == Some(&b'[');
                return if is_array { Ok(End::Array) } else { wrong };
            };
            match line {
                Line::Header if reading.section.is_some() => return wrong,
                Line::Header => {
                    reading.section = Some(0);
                    continue;
                }
                Line::End { lines } => {
                    if reading.section.take().is_some_and(|section| section != lines) {
                        return wrong;
                    }
                    continue;
                }
                Line::Namespace { .. } | Line::Key { .. } => {
                    reading.section = reading.section.map(|section| section + 1);
                }
            }
            match line {
                Line::Namespace {
                    name,
                    id,
                    default_ttl_ms,
                } if arguments.namespace.is_none() => {
                    let is_new = !self.namespaces.contains_key(&name);
                    if !self.create(&name) {
                        return wrong;
                    }
                    if let Some(ttl_ms) = default_ttl_ms {
                        let stays = arguments.if_absent && self.default_ttls_ms.contains_key(&name);
                        if !stays {
                            self.default_ttls_ms.insert(name.clone(), ttl_ms);
                        }
                    }
                    if let Some(id) = id.filter(|_| is_new) {
                        self.ids.entry(id).or_insert(name);
                    }
                }
                Line::Key { namespace, key, kept } => {
                    let Some(name) = arguments.namespace.clone().or(namespace) else {
                        return wrong;
                    };
                    if !self.create(&name) {
                        return wrong;
                    }
                    reading.writes.push((number, name, key, kept));
                }
                _ => {}
            }
        }
        Ok(if reading.section.is_some() {
            End::CutOff
        } else {
            End::Whole
        })
    }

    /// Creates the namespace; false if its name is not valid.
    fn create(&mut self, name: &str) -> bool {
        let is_good = (1..=2048).contains(&name.len());
        if is_good {
            self.namespaces.entry(name.to_owned()).or_default();
        }
        is_good
    }
}

impl End {
    /// What a resumed import reports depends on how far the earlier one came.
    fn filter_resumed(self, skipped: u64) -> End {
        match self {
            End::At(line, _) if skipped > 0 => End::At(line, None),
            end => end,
        }
    }
}

/// UTF-8 text without the mark in front of it; None if it begins as text in UTF-16 or UTF-32 does:
/// with another mark, or with zeros around an ASCII character.
pub(crate) fn unmarked(text: &[u8]) -> Option<&[u8]> {
    let head = &text[..text.len().min(4)];
    let zeros: Vec<bool> = head.iter().map(|byte| *byte == 0).collect();
    let is_wide = matches!(
        zeros[..],
        [false, true, ..] | [true, false, ..] | [true, true, true, false]
    );
    let has_mark = [&[0xff, 0xfe][..], &[0xfe, 0xff], &[0, 0, 0xfe, 0xff]]
        .iter()
        .any(|mark| head.starts_with(mark));
    let unmarked = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
    (!is_wide && !has_mark).then_some(unmarked)
}

/// A directory for files, removed on drop.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        // In memory where possible.
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() {
            memory.to_owned()
        } else {
            std::env::temp_dir()
        };
        let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let directory = parent.join(format!("embercask-fuzz-{process}-{number}"));
        std::fs::create_dir_all(&directory).unwrap();
        Scratch(directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
