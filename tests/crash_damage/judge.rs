//! What a damaged store may show: the right content, or an error that locates the damage.

use std::path::Path;

use embercask::{Error, ReadMode, Result, Store, VerifyReport, salvage, verify};

use crate::damages::Damaged;
use crate::records::{BATCH_BEGIN, Content, Item, Record, SEAL, SEGMENT_HEADER_LEN, resolve, segment_id};
use crate::run::Tally;
use crate::subject::{NOW_MS, is_hint, is_segment, options};
use test_support::DIRECTORY;

/// Everything a store lists.
pub(crate) fn content(store: &Store) -> Result<Content> {
    let mut content = Content::default();
    for info in store.namespaces()? {
        for entry in store.open_namespace(&info.name)?.list().page_size(7).with_values() {
            let entry = entry?;
            let value = entry.value().expect("it was asked for");
            let item = Item {
                value: value.to_vec(),
                metadata: value.metadata().map(<[u8]>::to_vec),
                expiry: value.expiry_ms(),
            };
            content.items.insert((info.name.clone(), entry.key().to_vec()), item);
        }
        content.namespaces.push(info.name);
    }
    content.namespaces.sort();
    Ok(content)
}

/// Asserts that an error is of the right kind and names the damaged place.
fn check_error(damaged: &Damaged<'_>, error: &Error) {
    match error {
        Error::Corruption { path, offset, .. } => {
            let says = format!("{} at offset {offset}", path.display());
            assert!(
                error.to_string().ends_with(&says),
                "the error does not say where: {error}"
            );
            assert!(damaged.is_changed(path), "the error names an undamaged file: {error}");
            if is_segment(path) && damaged.has_its_length(path) {
                let part = part_at(damaged, path, *offset as usize);
                assert!(
                    damaged.is_touched(path, part.clone()),
                    "{part:?} is not damaged: {error}"
                );
            }
        }
        Error::NewerFormat { path, .. } => {
            assert!(damaged.is_touched(path, 8..12), "the version is not damaged: {error}");
        }
        Error::NotAStore { .. } => {
            let manifest = Path::new(DIRECTORY).join("MANIFEST");
            assert!(damaged.bytes(&manifest).is_none(), "the manifest exists: {error}");
        }
        _ => panic!("damage must not cause this error: {error:?}"),
    }
}

/// The header or record that contains this offset.
fn part_at(damaged: &Damaged<'_>, path: &Path, offset: usize) -> std::ops::Range<usize> {
    let records = damaged.subject.records.iter().filter(|record| record.path == path);
    let mut parts = records.map(|record| record.start..record.end);
    let part = parts.find(|part| part.contains(&offset));
    part.unwrap_or(0..SEGMENT_HEADER_LEN)
}

/// How a damaged store opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Not at all.
    Refused,
    /// Some keys are unreadable.
    Harmed,
    Whole,
}

/// Opens a damaged store that must not lose anything silently, and reads all of it in every way.
pub(crate) fn judge(damaged: &Damaged<'_>, mode: ReadMode, hints: bool) -> Verdict {
    let disk = damaged.disk();
    if !hints {
        for path in disk.files(DIRECTORY).into_iter().filter(|path| is_hint(path)) {
            disk.remove_file(path).unwrap();
        }
    }
    let closed = verify(DIRECTORY, &options(&disk.crash_process(), NOW_MS));
    let store = options(&disk, NOW_MS).read_mode(mode).open(DIRECTORY);
    match &closed {
        Ok(report) => check_closed(damaged, report, store.is_ok()),
        Err(error) => {
            check_error(damaged, error);
            assert!(store.is_err(), "verify refuses a store that opens: {error}");
        }
    }
    let store = match store {
        Ok(store) => store,
        Err(error) => {
            check_error(damaged, &error);
            return Verdict::Refused;
        }
    };
    let whole = look(damaged, &store);
    check_verify(damaged, &store.verify().unwrap());
    if whole { Verdict::Whole } else { Verdict::Harmed }
}

/// Whether everything was readable. Asserts that what was readable is right.
fn look(damaged: &Damaged<'_>, store: &Store) -> bool {
    let expected = &damaged.subject.content;
    let mut whole = true;
    let mut failed = |error: Error| {
        check_error(damaged, &error);
        whole = false;
    };
    let mut names: Vec<_> = store.namespaces().unwrap().into_iter().map(|info| info.name).collect();
    names.sort();
    assert_eq!(names, expected.namespaces);
    for name in names {
        let namespace = store.open_namespace(&name).unwrap();
        let keys: Vec<&[u8]> = damaged
            .subject
            .keys
            .iter()
            .filter(|(of, _)| *of == name)
            .map(|(_, key)| &**key)
            .collect();
        let items: Vec<Option<&Item>> = keys
            .iter()
            .map(|key| expected.items.get(&(name.clone(), key.to_vec())))
            .collect();
        let is = |found: Option<embercask::Value>, item: Option<&Item>, key: &[u8]| {
            let found = found.map(|value| Item {
                value: value.to_vec(),
                metadata: value.metadata().map(<[u8]>::to_vec),
                expiry: value.expiry_ms(),
            });
            assert_eq!(found.as_ref(), item, "{name}: {}", key.escape_ascii());
        };
        for (key, item) in keys.iter().zip(&items) {
            match namespace.get(key) {
                Ok(found) => is(found, *item, key),
                Err(error) => failed(error),
            }
            match namespace.contains(key) {
                Ok(found) => assert_eq!(found, item.is_some(), "{name}: {}", key.escape_ascii()),
                Err(error) => failed(error),
            }
        }
        match namespace.get_many(&keys) {
            Ok(found) => found
                .into_iter()
                .zip(&items)
                .zip(&keys)
                .for_each(|((found, item), key)| is(found, *item, key)),
            Err(error) => failed(error),
        }
        let there: Vec<&[u8]> = keys
            .iter()
            .zip(&items)
            .filter(|(_, item)| item.is_some())
            .map(|(key, _)| *key)
            .collect();
        match namespace.list().page_size(3).into_iter().collect::<Result<Vec<_>>>() {
            Ok(found) => assert_eq!(
                found.iter().map(|entry| entry.key()).collect::<Vec<_>>(),
                there,
                "{name}"
            ),
            Err(error) => failed(error),
        }
        match namespace.count() {
            Ok(count) => assert_eq!(count, there.len() as u64, "{name}"),
            Err(error) => failed(error),
        }
    }
    match content(store) {
        Ok(found) => assert_eq!(found, *expected),
        Err(error) => failed(error),
    }
    whole
}

/// Asserts that verifying the files lists every damaged part of every segment, the reason if the
/// store does not open, and nothing that is sound.
fn check_closed(damaged: &Damaged<'_>, report: &VerifyReport, opens: bool) {
    check_all_listed(damaged, report, |path, at| can_be_known(damaged, path, at));
    assert!(
        opens || !report.is_sound(),
        "it does not open, but verify reports nothing"
    );
    for range in report.damaged.iter().chain(&report.discarded) {
        assert!(damaged.is_changed(&range.path), "verify lists a sound range: {range}");
    }
}

/// Asserts that verify lists every damaged part of every segment, by segment and offset, and
/// nothing that is sound.
fn check_verify(damaged: &Damaged<'_>, report: &VerifyReport) {
    check_all_listed(damaged, report, |_, _| true);
    for range in &report.damaged {
        let (start, end) = (range.offset as usize, (range.offset + range.length) as usize);
        assert!(
            is_segment(&range.path) && damaged.is_touched(&range.path, start..end),
            "verify lists a sound range: {range}"
        );
        let id = segment_id(&damaged.subject.files[&range.path]);
        assert_eq!(range.segment, Some(id), "{range}");
        // Only the damaged parts, so that an operator sees what was lost.
        let first = part_at(damaged, &range.path, start);
        assert!(start >= first.start && start < first.end, "{range}");
    }
}

/// Whether the files show that there was something at this place. Without the manifest, the content
/// past the end of a cut segment, or in trailing zeros, cannot be known.
fn can_be_known(damaged: &Damaged<'_>, path: &Path, at: usize) -> bool {
    let knows_ends = !damaged.is_changed(&Path::new(DIRECTORY).join("MANIFEST"));
    let is_inside = |bytes: &[u8]| bytes.iter().skip(at).any(|&byte| byte != 0);
    knows_ends || damaged.bytes(path).is_some_and(is_inside)
}

/// Asserts that the first wrong byte of every knowable damaged record is listed.
fn check_all_listed(damaged: &Damaged<'_>, report: &VerifyReport, can_be_known: impl Fn(&Path, usize) -> bool) {
    let listed = |path: &Path, at: usize| {
        report.damaged.iter().any(|range| {
            range.path == path && (range.offset as usize..(range.offset + range.length) as usize).contains(&at)
        })
    };
    for record in &damaged.subject.records {
        if let Some(at) = damaged.first_touched(&record.path, record.start..record.end)
            && can_be_known(&record.path, at)
        {
            assert!(
                listed(&record.path, at),
                "byte {at} of {} is not listed: {:?}",
                record.path.display(),
                report.damaged
            );
        }
    }
}

/// Whether salvage can use this record: its segment's header is repairable, none of its checksummed
/// bytes changed, and the file does not end inside it.
fn is_usable(damaged: &Damaged<'_>, record: &Record) -> bool {
    damaged.wrong_header_bits(&record.path) <= 1
        && !damaged.is_touched(&record.path, record.start..record.used)
        && damaged
            .bytes(&record.path)
            .is_some_and(|bytes| bytes.len() >= record.end)
}

/// Whether salvage takes this record for part of a batch that was torn while being written: its
/// batch is incomplete, and nothing follows in its segment, nor any write in another one.
fn is_torn(damaged: &Damaged<'_>, record: &Record) -> bool {
    let Some(begin) = record.batch else { return false };
    let records = || damaged.subject.records.iter().filter(|other| is_usable(damaged, other));
    let later = |other: &Record| other.path == record.path && other.start > begin && other.batch != Some(begin);
    let newer = |other: &Record| other.has_key() && other.sequence > record.sequence && other.batch != Some(begin);
    let mut siblings = damaged
        .subject
        .records
        .iter()
        .filter(|other| other.path == record.path && other.batch == Some(begin));
    records().any(|other| other.path == record.path && other.start == begin && other.kind == BATCH_BEGIN)
        && siblings.any(|other| !is_usable(damaged, other))
        && !records().any(|other| later(other) || newer(other))
}

/// What salvage must recover: the newest usable record of every key.
fn salvageable(damaged: &Damaged<'_>, may_be_torn: bool) -> Content {
    let usable = damaged.subject.records.iter().filter(|record| {
        record.kind != SEAL && is_usable(damaged, record) && !(may_be_torn && is_torn(damaged, record))
    });
    resolve(usable, NOW_MS)
}

/// Salvages the store and compares the result with what is recoverable.
pub(crate) fn judge_salvage(damaged: &Damaged<'_>, unclean: bool) -> Tally {
    let disk = damaged.disk();
    let report = match salvage(DIRECTORY, "/out", options(&disk, NOW_MS)) {
        Ok(report) => report,
        Err(Error::NotAStore { .. })
            if !damaged
                .files
                .keys()
                .any(|path| is_segment(path) || path.ends_with("MANIFEST")) =>
        {
            return Tally::default();
        }
        Err(error) => panic!("salvage: {error}"),
    };
    let out = options(&disk, NOW_MS).create(false).open("/out").unwrap();
    let found = content(&out).unwrap();
    let manifest_damaged = !report.manifest;
    assert_eq!(found, salvageable(damaged, unclean || manifest_damaged), "salvaged");
    assert_eq!(report.keys, found.items.len() as u64);
    let lost = damaged.subject.records.iter().find(|record| {
        record.has_key() && !is_usable(damaged, record) && can_be_known(damaged, &record.path, record.start)
    });
    if let Some(lost) = lost {
        assert!(
            report.all_lost().any(|range| range.path == lost.path)
                || report.segments.iter().any(|segment| segment.torn_records > 0)
                || unclean,
            "{lost:?} is not reported"
        );
    }
    for range in report.all_lost() {
        assert!(
            damaged.is_changed(&range.path),
            "salvage reports a sound range: {range}"
        );
    }
    Tally::salvaged()
}
