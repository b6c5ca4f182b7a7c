//! Imports that were cut off and are resumed from their progress notes.

use embercask::Store;
use embercask::storage::MemStorage;

use super::{Bytes, End, Import, Model, NAMESPACE, Scratch, Unclear, arguments, check, prepared, run, unmarked};
use crate::common::failure::Outcome;
use crate::common::fuzzing::json::{self, Node, Others, Value};
use crate::common::fuzzing::{open, told};
use embercask::testing::input::strike;

/// Resumes an import that was cut off at any byte, with a note and a file that may have changed
/// since: it ends as a second reader of note and file predicts. If the note is unchanged or
/// damaged, no line is skipped that was not imported.
pub fn import_resume(data: &[u8]) {
    let mut input = Bytes::new(data);
    let (how, cut, step, file_change, note_change) =
        (input.u8(), usize::from(input.u16()), input.u8(), input.u8(), input.u8());
    let scratch = Scratch::new();
    let note_file = scratch.path("note");
    let note_length = usize::from(input.u8());
    let (changes, own_note) = (input.bytes(16), input.bytes(note_length));
    let text = lines(&mut input);

    let disk = MemStorage::new();
    let (store, mut model) = prepared(&disk);
    let (older, sequence) = (how & 4 != 0, store.stats().last_sequence);
    let copy = older.then(|| disk.crash_process());
    let first = arguments(how, Some(note_file.clone()), false);
    let first_run = FirstRun {
        text: &text,
        cut: cut % (text.len() + 1),
        step,
    };
    let Ok(()) = first_run.check(&store, &mut model, &first) else {
        return;
    };
    let Ok(note) = std::fs::read(&note_file) else {
        // The import was complete, or had nothing to note.
        return;
    };

    let mut changes = Bytes::new(changes);
    let file = changed_file(&text, file_change, &mut changes);
    let noted = changed_note(&note, note_change, own_note, &mut changes);
    std::fs::write(&note_file, &noted).unwrap();
    let (store, mut model) = match copy {
        // The copy from before the import: it lacks the noted lines.
        Some(disk) => {
            drop(store);
            (open(&disk), prepared(&MemStorage::new()).1)
        }
        None => (store, model),
    };
    let second = arguments(how ^ (how >> 4 & 3), Some(note_file), true);
    let before = model.clone();
    let Ok(expected) = resumed(&mut model, &store, &second, &noted, &file) else {
        return;
    };
    let done = run(&store, &second, &file, step, None);
    check_resumed(done, expected.as_ref());
    model.check(&store);

    // Damage is detected, or harmless: no line is missing.
    let is_accepted = match note_change % 4 {
        0 => !matches!(expected, None | Some(End::Another | End::Encoding)),
        1 => expected == Some(End::Whole),
        _ => false,
    };
    if is_accepted && !older {
        let mut whole = before;
        let Ok(end) = whole.import(&file, &second, 0, None) else {
            return;
        };
        assert_eq!(whole.namespaces, model.namespaces, "lines were left out");
        assert_eq!(end == End::Whole, expected == Some(End::Whole), "{end:?}");
    } else if is_accepted {
        // Lines that the copy lacks are not taken for done.
        let note = json::parse(&noted).ok().and_then(|note| Note::of(&note));
        assert!(note.is_none_or(|note| note.sequence <= sequence));
    }
}

/// An import of which only so many bytes can be read.
struct FirstRun<'a> {
    text: &'a [u8],
    cut: usize,
    step: u8,
}

impl FirstRun<'_> {
    /// Runs it: it ends where the reader fails, or at a wrong line.
    fn check(&self, store: &Store, model: &mut Model, arguments: &Import) -> Result<(), Unclear> {
        let whole_lines = self.text[..self.cut]
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        let is_cut = self.cut < self.text.len();
        let read = if is_cut { &self.text[..whole_lines] } else { self.text };
        let expected = model.clone().import(read, arguments, 0, None)?;
        let done = run(store, arguments, self.text, self.step, is_cut.then_some(self.cut));
        model.import(read, arguments, 0, None)?;
        model.check(store);
        match expected {
            End::Whole | End::CutOff if is_cut => assert!(done.is_err()),
            expected => check(done, &expected),
        }
        Ok(())
    }
}

/// The file as the second run finds it.
fn changed_file(text: &[u8], change: u8, changes: &mut Bytes<'_>) -> Vec<u8> {
    let mut file = text.to_vec();
    match change % 4 {
        0 | 1 => {}
        2 => strike(&mut file, changes),
        _ => file.truncate(usize::from(changes.u16()) % (text.len() + 1)),
    }
    file
}

/// The note as the second run finds it.
fn changed_note(note: &[u8], change: u8, own: &[u8], changes: &mut Bytes<'_>) -> Vec<u8> {
    let mut noted = note.to_vec();
    match change % 4 {
        0 => {}
        1 => strike(&mut noted, changes),
        2 => noted = edited(note, changes),
        _ => noted = own.to_vec(),
    }
    noted
}

/// Lines of an export, each generated from a few bytes, or raw bytes of the fuzzer.
fn lines(input: &mut Bytes<'_>) -> Vec<u8> {
    let (mut text, mut section) = (Vec::new(), 0_u64);
    while !input.is_empty() {
        let (what, number) = (input.u8(), input.u8());
        let key = number % 8;
        section += 1;
        let line = match what % 8 {
            0..=2 => format!(
                r#"{{"namespace":"{}","key":"k{key}","value":"{number}"}}"#,
                ["a", NAMESPACE][usize::from(what >> 3 & 1)]
            ),
            3 => format!(
                r#"{{"key":"k{key}","value":"{number}","expiration_ms":{}}}"#,
                1_700_000_000_000_u64 + u64::from(number) * 100
            ),
            4 => format!(r#"{{"namespace":"n{key}","id":"{number:032x}"}}"#),
            5 => {
                section = 0;
                r#"{"export":1,"store":"00","namespaces":null,"prefix":""}"#.to_owned()
            }
            6 => format!(r#"{{"end":true,"lines":{}}}"#, section - 1 + u64::from(number == 255)),
            _ => {
                text.extend_from_slice(input.bytes(usize::from(number)));
                String::new()
            }
        };
        text.extend_from_slice(line.as_bytes());
        if what >> 4 != 15 {
            text.push(b'\n');
        }
    }
    text
}

/// A well-formed note with one member changed.
fn edited(note: &[u8], changes: &mut Bytes<'_>) -> Vec<u8> {
    let mut note: serde_json::Value = serde_json::from_slice(note).expect("it is JSON");
    let (field, number) = (changes.below(5), u64::from(changes.u8()));
    let object = note.as_object_mut().expect("it is an object");
    let (name, value) = match field {
        0 => ("items", number.into()),
        1 => ("crc32", number.into()),
        2 => (
            "section",
            if number == 0 {
                serde_json::Value::Null
            } else {
                number.into()
            },
        ),
        3 => ("sequence", number.into()),
        _ => ("store", number.to_string().into()),
    };
    object.insert(name.to_owned(), value);
    serde_json::to_vec(&note).expect("it can be written")
}

/// How a resumed import ends; None if the note is refused.
fn resumed(
    model: &mut Model,
    store: &Store,
    arguments: &Import,
    note: &[u8],
    file: &[u8],
) -> Result<Option<End>, Unclear> {
    let note = match json::parse(note) {
        Err(json::Wrong::TooDeep) => return Err(Unclear),
        note => note.ok().and_then(|note| Note::of(&note)),
    };
    let Some(note) = note else { return Ok(None) };
    let is_of_this = note.store == format!("{:032x}", store.id())
        && note.namespace == arguments.namespace
        && !note.bulk
        && note.if_absent == arguments.if_absent
        && note.sequence <= store.stats().last_sequence;
    if !is_of_this {
        return Ok(None);
    }
    let Some(text) = unmarked(file) else {
        return Ok(Some(End::Encoding));
    };
    if note.items == 0 {
        return model.import(file, arguments, 0, None).map(Some);
    }
    let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    let first = usize::try_from(note.items).ok().and_then(|items| lines.get(..items));
    match first {
        Some(first) if crc32fast::hash(&first.concat()) == note.crc32 => {
            model.import(file, arguments, note.items, note.section).map(Some)
        }
        _ => Ok(Some(End::Another)),
    }
}

fn check_resumed(done: Outcome, expected: Option<&End>) {
    match expected {
        Some(expected) => check(done, expected),
        None => {
            let failure = done.expect_err("this note must be refused");
            assert!(told(&failure).contains("note"), "{failure:?}");
        }
    }
}

struct Note {
    store: String,
    sequence: u64,
    namespace: Option<String>,
    bulk: bool,
    if_absent: bool,
    items: u64,
    crc32: u32,
    section: Option<u64>,
}

impl Note {
    /// Requires all members, and no others.
    fn of(note: &Node<'_>) -> Option<Note> {
        let known = [
            "store",
            "sequence",
            "namespace",
            "bulk",
            "if_absent",
            "items",
            "crc32",
            "section",
        ];
        let note = note.members(|name| known.contains(&name), Others::AreWrong)?;
        let u64 = |name| note.get(name)?.number()?.parse().ok();
        let nullable = |name| note.get(name).map(|node| !matches!(node.value, Value::Null));
        Some(Note {
            store: note.get("store")?.text()?.to_owned(),
            sequence: u64("sequence")?,
            namespace: nullable("namespace").and_then(|_| note.text("namespace"))?,
            bulk: note.get("bulk")?.bool()?,
            if_absent: note.get("if_absent")?.bool()?,
            items: u64("items")?,
            crc32: u64("crc32")?.try_into().ok()?,
            section: nullable("section").and_then(|_| note.u64("section"))?,
        })
    }
}
