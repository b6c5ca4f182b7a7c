//! Exports: complete ones, which import to the same content, and resumed ones.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use embercask::Store;
use embercask::storage::MemStorage;

use super::lines::{Line, read};
use super::{Bytes, Scratch, arguments, default_ttls_ms, run};
use crate::cli::arguments::{Export, FileFormat};
use crate::cli::session::Session;
use crate::cli::transfer::compression::Compression;
use crate::cli::transfer::export;
use crate::common::failure::Outcome;
use crate::common::fuzzing::{Kept, Keys, NOW_MS, content, open, told};
use embercask::testing::input::strike;

fn export_to(store: &Store, file: &Path, resume: bool) -> Outcome {
    let arguments = Export {
        file: file.to_owned(),
        namespace: Vec::new(),
        prefix: "".into(),
        format: FileFormat::Lines,
        resume,
    };
    export(&Session::of_store(store.clone()), &arguments)
}

/// An export has the content of the store, and its import produces the same content.
pub(super) fn round_trip(store: &Store) {
    let scratch = Scratch::new();
    let file = scratch.path("export");
    export_to(store, &file, false).unwrap();
    let text = std::fs::read(file).unwrap();
    assert_eq!(said(&text), Some(content(store)));
    let other = open(&MemStorage::new());
    run(&other, &arguments(0, None, false), &text, 255, None).unwrap();
    let mut expected = content(store);
    for keys in expected.values_mut() {
        // An import skips keys that expire within a second.
        keys.retain(|_, kept| kept.expiry_ms.is_none_or(|expiry| expiry >= NOW_MS + 1000));
    }
    assert_eq!(content(&other), expected);
    assert_eq!(default_ttls_ms(&other), default_ttls_ms(store));
    let ids = |store: &Store| -> Vec<_> {
        store
            .namespaces()
            .unwrap()
            .into_iter()
            .map(|info| (info.name, info.id))
            .collect()
    };
    assert_eq!(ids(&other), ids(store));
}

/// The content of a complete export, by the second reader; None if it is incomplete, out of order,
/// or has anything twice.
fn said(text: &[u8]) -> Option<BTreeMap<String, Keys>> {
    let mut said = BTreeMap::<String, Keys>::new();
    let (mut last, mut is_ended) = (None, false);
    let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    for (index, line) in lines.iter().enumerate() {
        if is_ended || !line.ends_with(b"\n") {
            return None;
        }
        match read(line).ok()?? {
            Line::Header if index == 0 => {}
            _ if index == 0 => return None,
            Line::Header => return None,
            Line::End { lines } => {
                is_ended = lines == index as u64 - 1;
                if !is_ended {
                    return None;
                }
            }
            Line::Namespace { name, id, .. } => {
                id?;
                if said.insert(name, Keys::new()).is_some() {
                    return None;
                }
            }
            Line::Key { namespace, key, kept } => {
                let place = (namespace?, key);
                if last.as_ref().is_some_and(|last| *last >= place) {
                    return None;
                }
                said.get_mut(&place.0)?.insert(place.1.clone(), kept);
                last = Some(place);
            }
        }
    }
    is_ended.then_some(said)
}

/// Resumes an export that was cut off at any byte, with other bytes appended; a compressed one may
/// be damaged anywhere. The file is as if the export had never stopped, or the export is refused
/// and the user's file is unchanged.
pub fn export_resume(data: &[u8]) {
    let mut input = Bytes::new(data);
    let (how, cut) = (input.u8(), usize::from(input.u16()));
    let changes = input.bytes(8);
    let junk_length = usize::from(input.u8() % 64);
    let junk = input.bytes(junk_length);
    let store = open(&MemStorage::new());
    fill(&store, &mut input);

    let scratch = Scratch::new();
    let name = ["export.jsonl", "export.jsonl.gz", "export.jsonl.zst"][usize::from(how % 3)];
    let (file, whole) = (scratch.path(name), scratch.path(&format!("whole-{name}")));
    export_to(&store, &whole, false).unwrap();
    let written = std::fs::read(&whole).unwrap();
    let text = decoded(&whole).expect("a complete export can be read");
    assert_eq!(said(&text), Some(content(&store)));

    let mut partial = written[..cut % (written.len() + 1)].to_vec();
    let is_compressed = how % 3 > 0;
    match how >> 4 & 3 {
        0 => {}
        1 => partial.extend(std::iter::repeat_n(0, junk_length)),
        // Text has no checksum, so append only bytes that cannot be taken for lines.
        _ if !is_compressed => partial.extend(junk.iter().map(|byte| byte | 0x80)),
        2 => partial.extend_from_slice(junk),
        _ => strike(&mut partial, &mut Bytes::new(changes)),
    }
    let partial_file = scratch.path(&format!("{name}.partial"));
    std::fs::write(&partial_file, &partial).unwrap();
    // A change made meanwhile may or may not be in the export.
    let later = how & 0x80 != 0;
    if later {
        let namespace = store.namespace("later").unwrap();
        namespace.put("key", "value").unwrap();
    }
    match export_to(&store, &file, true) {
        Ok(()) => {
            let resumed = decoded(&file).expect("a resumed export can be read");
            let mut expected = said(&text).unwrap();
            let said = said(&resumed).expect("a resumed export is complete");
            if later && said.contains_key("later") {
                let value = b"value".to_vec();
                let keys = [(
                    b"key".to_vec(),
                    Kept {
                        value,
                        ..Kept::default()
                    },
                )];
                expected.insert("later".to_owned(), keys.into());
            } else {
                assert_eq!(resumed, text);
            }
            assert_eq!(said, expected);
            assert!(!partial_file.exists());
        }
        Err(failure) => {
            assert!(
                told(&failure).contains("is not an export of the same store"),
                "{failure:?}"
            );
            assert_eq!(std::fs::read(&partial_file).unwrap(), partial);
            assert!(!file.exists());
        }
    }
}

/// A few keys of some length.
fn fill(store: &Store, input: &mut Bytes<'_>) {
    for name in ["a", "b", "c"] {
        let namespace = store.namespace(name).unwrap();
        for _ in 0..input.below(8) {
            let (length, expires) = (usize::from(input.u8()), input.u8() & 1 != 0);
            let key = [&[b'k'][..], input.bytes(usize::from(length as u8 % 8))].concat();
            let kept = Kept {
                value: input.bytes(length).repeat(1 + length % 4),
                expiry_ms: expires.then_some(NOW_MS + 1_000_000),
                metadata: (length % 3 == 0).then(|| b"{\"a\":1}".to_vec()),
            };
            namespace.put_with(&key, &kept.value, kept.options()).unwrap();
        }
        if name == "b" {
            namespace.set_default_ttl(Some(Duration::from_millis(1))).unwrap();
        }
    }
}

fn decoded(file: &Path) -> Option<Vec<u8>> {
    let reader = std::io::BufReader::new(std::fs::File::open(file).ok()?);
    let mut text = Vec::new();
    Compression::of(file)
        .decoded(reader)
        .ok()?
        .read_to_end(&mut text)
        .ok()?;
    Some(text)
}
