//! Files that were cut, grew, lost blocks, were removed, mixed up with others, or rolled back.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use embercask::storage::MemStorage;
use embercask::{PutOptions, ReadMode, salvage};

use crate::damages::{Damage, Damaged};
use crate::judge::{content, judge_salvage};
use crate::records::Content;
use crate::run::{floors, one_in, run, samples};
use crate::subject::{NOW_MS, Subject, WRITTEN_MS, is_hint, is_segment, large, options, small};
use crate::{is_unimportant, judge_everything, judge_one_way};
use test_support::{DIRECTORY, Rng, rng};

/// One in this many lengths is tried.
const LENGTHS_BETWEEN: u64 = 5;
/// One in this many ways for a file to grow is tried.
const GROWTHS_BETWEEN: u64 = 4;
/// One in this many lengths is tried of files that hold no data.
const UNIMPORTANT_STEP: usize = 97;

fn lengths(subject: &Subject) -> Vec<(PathBuf, usize)> {
    subject
        .files
        .iter()
        .map(|(path, bytes)| (path.clone(), bytes.len()))
        .collect()
}

#[test]
fn every_file_of_a_closed_store_cut_at_every_length_is_found_or_does_no_harm() {
    let subject = small(1);
    let damages = lengths(&subject).into_iter().flat_map(|(path, length)| {
        let step = if is_unimportant(&path) { UNIMPORTANT_STEP } else { 1 };
        (0..length)
            .step_by(step)
            .map(move |cut| Damage::SetLength(path.clone(), cut))
    });
    let sample = one_in(LENGTHS_BETWEEN);
    let least = (sample.floor(3_000), floors(3_000, 0, 400, 800).of_sample(sample));
    run("cut files", sample.of(damages), least, |damage| {
        judge_one_way(&subject, damage)
    });
}

#[test]
fn files_that_grew_are_found_or_do_no_harm() {
    for subject in [small(1), large()] {
        let mut damages = Vec::new();
        for (path, length) in lengths(&subject) {
            for count in [1, 7, 8, 24, 104, 512, 4096] {
                for byte in [0, 1, 0xff] {
                    damages.push(Damage::Append(path.clone(), count, byte));
                }
            }
            // Its content twice.
            let twice = [&subject.files[&path][..], &subject.files[&path]].concat();
            damages.push(Damage::Replace(path.clone(), twice, "itself, twice".to_owned()));
            damages.push(Damage::SetLength(path.clone(), length + 200_000));
        }
        let sample = one_in(GROWTHS_BETWEEN);
        run(
            "files that grew",
            sample.of(damages.into_iter()),
            (sample.floor(180), floors(320, 0, 380, 180).of_sample(sample)),
            |damage| judge_everything(&subject, damage),
        );
    }
}

/// Blocks as devices write them: lost, filled with ones, or in the place of another block.
#[test]
fn blocks_that_were_lost_or_went_astray_are_found_or_do_no_harm() {
    let subject = large();
    let files = lengths(&subject);
    let mut damages = Vec::new();
    for (index, (path, length)) in files.iter().enumerate() {
        let (other, other_length) = &files[(index + 1) % files.len()];
        for size in [512, 4096] {
            for at in (0..*length).step_by(if is_unimportant(path) { 16 << 10 } else { size }) {
                damages.push(Damage::Fill(path.clone(), at..at + size, 0));
                damages.push(Damage::Fill(path.clone(), at..at + size, 0xff));
                if at + size < *length {
                    damages.push(Damage::Swap((path.clone(), at), (path.clone(), at + size), size));
                }
                if at < *other_length {
                    damages.push(Damage::Swap((path.clone(), at), (other.clone(), at), size));
                }
            }
        }
    }
    run(
        "blocks",
        damages.into_iter(),
        (350, floors(350, 20, 40, 90)),
        |damage| judge_one_way(&subject, damage),
    );
}

/// Every way to mix up the files of two stores, and the files of one store, except for the
/// manifest.
#[test]
fn files_that_are_missing_or_stand_for_others_are_found_or_do_no_harm() {
    let (subject, stranger) = (small(1), small(2));
    let unlisted = |end: &str| Path::new(DIRECTORY).join(format!("00000000000000ff.{end}"));
    let mut damages = Vec::new();
    for path in subject.files.keys() {
        damages.push(Damage::Remove(path.clone()));
        let alike = |other: &&PathBuf| other.extension() == path.extension() && !is_unimportant(other);
        for other in subject.files.keys().filter(alike).filter(|other| *other != path) {
            damages.push(Damage::Copy(path.clone(), other.clone()));
            damages.push(Damage::Exchange(path.clone(), other.clone()));
        }
        for (other, bytes) in stranger.files.iter().filter(|(other, _)| alike(other)) {
            if !path.ends_with("MANIFEST") {
                let what = format!(
                    "{} of another store",
                    other.file_name().unwrap_or_default().to_string_lossy()
                );
                damages.push(Damage::Replace(path.clone(), bytes.clone(), what));
            }
        }
        if is_segment(path) {
            damages.push(Damage::Copy(path.clone(), unlisted("segment")));
            // The segment is replaced; its hint stays.
            damages.push(Damage::Copy(path.clone(), path.with_extension("hint")));
        }
        if is_hint(path) {
            damages.push(Damage::Copy(path.clone(), unlisted("hint")));
        }
    }
    run(
        "files mixed up",
        damages.into_iter(),
        (120, floors(220, 0, 260, 120)),
        |damage| judge_everything(&subject, damage),
    );
}

/// A store that grew step by step: its files after each step, and what it showed.
fn history() -> Vec<(BTreeMap<PathBuf, Vec<u8>>, Content)> {
    let disk = MemStorage::seeded(1);
    let mut history = Vec::new();
    let mut store = options(&disk, WRITTEN_MS).open(DIRECTORY).unwrap();
    for n in 0..40u32 {
        let namespace = store.namespace("N").unwrap();
        let key = format!("key {}", n % 7);
        match n % 13 {
            4 => drop(namespace.delete(&key).unwrap()),
            5 => drop(store.namespace("OTHER").unwrap().put(&key, "other").unwrap()),
            7 => {
                let brief = PutOptions::new().expires_at_ms(WRITTEN_MS + 1_000);
                namespace.put_with(&key, "brief", brief).unwrap();
            }
            8 => drop(
                store
                    .batch()
                    .put(&namespace, "a", &key)
                    .put(&namespace, "b", &key)
                    .commit()
                    .unwrap(),
            ),
            9 => drop(store.compact_subset(0b101).unwrap()),
            11 => drop(store.drop_namespace("OTHER")),
            12 => {
                drop(namespace);
                store.close().unwrap();
                store = options(&disk, WRITTEN_MS).open(DIRECTORY).unwrap();
                continue;
            }
            _ => drop(namespace.put(&key, format!("{n}").repeat(40)).unwrap()),
        }
        let subject = Subject::of(&disk.crash_process());
        let killed = options(&subject.disk.crash_process(), NOW_MS).open(DIRECTORY).unwrap();
        history.push((subject.files, content(&killed).unwrap()));
    }
    store.close().unwrap();
    let closed = Subject::of(&disk);
    let shown = content(&options(&disk, NOW_MS).open(DIRECTORY).unwrap()).unwrap();
    history.push((closed.files, shown));
    history
}

#[test]
fn a_segment_or_hint_from_an_earlier_point_is_found_or_does_no_harm() {
    let history = history();
    let disk = MemStorage::new();
    embercask::storage::Storage::create_directory(&disk, Path::new(DIRECTORY)).unwrap();
    let (last, _) = history.last().unwrap();
    last.iter()
        .for_each(|(path, bytes)| disk.write_file(path, bytes).unwrap());
    let subject = Subject::of(&disk);
    let mut damages = Vec::new();
    for (step, (files, _)) in history.iter().enumerate() {
        for (path, bytes) in files.iter().filter(|(path, _)| is_segment(path) || is_hint(path)) {
            // The next version is identical and will be tried.
            let again = history
                .get(step + 1)
                .is_some_and(|(next, _)| next.get(path) == Some(bytes));
            if last.contains_key(path) && last[path] != *bytes && !again {
                damages.push(Damage::Replace(
                    path.clone(),
                    bytes.clone(),
                    format!("itself after step {step}"),
                ));
            }
        }
    }
    run(
        "files rolled back",
        damages.into_iter(),
        (8, floors(30, 0, 0, 8)),
        |damage| judge_everything(&subject, damage),
    );
}

/// Exactly what promise 13 excuses: an older manifest may hide later writes. Then the store shows
/// exactly a state that it once showed, or reports missing files. A deleted key comes back only as
/// part of that whole older state.
#[test]
fn a_manifest_from_an_earlier_point_is_refused_or_shows_a_state_that_once_was() {
    let history = history();
    let (last, _) = history.last().unwrap();
    let manifest = Path::new(DIRECTORY).join("MANIFEST");
    let (mut refused, mut opened) = (0, 0);
    for (step, (files, _)) in history.iter().enumerate() {
        for mode in [ReadMode::Map, ReadMode::Pread] {
            let disk = MemStorage::new();
            embercask::storage::Storage::create_directory(&disk, Path::new(DIRECTORY)).unwrap();
            last.iter()
                .for_each(|(path, bytes)| disk.write_file(path, bytes).unwrap());
            disk.write_file(&manifest, &files[&manifest]).unwrap();
            // Salvage uses the same manifest. Its result is unspecified, but it must not fail.
            drop(salvage(DIRECTORY, "/out", options(&disk, NOW_MS)).unwrap());
            match options(&disk, NOW_MS).read_mode(mode).open(DIRECTORY) {
                Ok(store) => {
                    opened += 1;
                    let found = content(&store).unwrap();
                    assert!(
                        history.iter().any(|(_, shown)| *shown == found),
                        "the manifest after step {step}: a state that never existed: {found:?}"
                    );
                }
                Err(error) => {
                    refused += 1;
                    assert_eq!(error.kind(), embercask::ErrorKind::Corruption, "step {step}: {error}");
                }
            }
        }
    }
    println!("older manifests: {opened} opened, {refused} refused");
    assert!(refused > 0 && opened > 0);
}

/// A manifest of another store lists other segments; salvage then relies on the segments.
#[test]
fn the_manifest_of_another_store_is_refused_and_not_believed_by_salvage() {
    let (subject, stranger) = (small(1), small(2));
    let manifest = Path::new(DIRECTORY).join("MANIFEST");
    let damage = Damage::Replace(
        manifest.clone(),
        stranger.files[&manifest].clone(),
        "another one".to_owned(),
    );
    let damaged = Damaged::new(&subject, &damage);
    let disk = damaged.disk();
    let error = options(&disk, NOW_MS).open(DIRECTORY).unwrap_err();
    assert_eq!(error.kind(), embercask::ErrorKind::Corruption, "{error}");
    let report = salvage(DIRECTORY, "/report", options(&disk, NOW_MS)).unwrap();
    assert!(!report.manifest && report.lost[0].path == manifest, "{report:?}");
    assert_eq!(judge_salvage(&damaged, false).salvaged, 1);
}

/// Random damage to any file.
fn any_damage(rng: &mut Rng, files: &[(PathBuf, usize)]) -> Damage {
    let any = |rng: &mut Rng| files[rng.below(files.len() as u64) as usize].clone();
    let (path, length) = loop {
        let (path, length) = any(rng);
        if length > 0 {
            break (path, length);
        }
    };
    let mut below = |bound: usize| rng.below(bound as u64) as usize;
    let at = below(length);
    match below(8) {
        0..3 => Damage::Flip(path, at * 8 + below(8)),
        3 => Damage::Fill(path, at..at + 1 + below(300), [0, 0xff, 7][below(3)]),
        4 => Damage::SetLength(path, at),
        5 => Damage::Append(path, 1 + below(600), below(256) as u8),
        6 => {
            let (other, other_length) = any(rng);
            let size = [64, 512, 4096][rng.below(3) as usize];
            Damage::Swap((path, at), (other, rng.below(other_length as u64 + 1) as usize), size)
        }
        _ => Damage::Exchange(path, any(rng).0),
    }
}

#[test]
fn several_damages_at_once_are_found_or_do_no_harm() {
    let mut rng = rng();
    for (subject, count) in [(small(1), samples(150)), (large(), samples(100))] {
        let files: Vec<_> = lengths(&subject)
            .into_iter()
            .filter(|(path, _)| !is_unimportant(path))
            .collect();
        let mut rng = rng.split();
        let damages = (0..count).map(|_| {
            let count = 1 + rng.below(4);
            Damage::Several((0..count).map(|_| any_damage(&mut rng, &files)).collect())
        });
        run(
            "several damages",
            damages,
            (
                count as u64,
                floors(count as u64 / 2, 0, count as u64 / 20, count as u64 / 10),
            ),
            |damage| judge_one_way(&subject, damage),
        );
    }
}
