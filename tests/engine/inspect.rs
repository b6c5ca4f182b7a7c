//! Inspecting files part by part: every byte of a sound file belongs to one part. A damaged byte is
//! reported or changes what is shown, and never ends the process.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use embercask::storage::MemStorage;
use embercask::{Durability, ErrorKind, FileKind, Options, Part, PartKind, PartValue, PutOptions, RingMode, inspect};
use test_support::{DIRECTORY, class, manual};

/// A closed store with all kinds of files and records.
fn closed() -> (MemStorage, Options) {
    let disk = MemStorage::new();
    let options = manual(Arc::new(disk.clone()));
    for life in 0..2 {
        let store = options.clone().open(DIRECTORY).unwrap();
        let namespace = store.namespace("N").unwrap();
        let rich = PutOptions::new().metadata("{}").expires_at_ms(4_000_000_000_000);
        namespace.put_with("rich", format!("value {life}"), rich).unwrap();
        namespace.put("deleted", "v").unwrap();
        namespace.delete("deleted").unwrap();
        store
            .batch()
            .put(&namespace, "a", "1")
            .put(&namespace, "b", "2")
            .commit()
            .unwrap();
        store.close().unwrap();
    }
    (disk, options)
}

/// Kind, offset and length of each part.
type Parts = Vec<(PartKind, u64, u64)>;

fn parts(path: &Path, options: &Options) -> embercask::Result<(FileKind, Parts)> {
    let mut parts = Vec::new();
    let kind = inspect(path, options, |part: &Part<'_>| {
        parts.push((part.kind, part.offset, part.length));
        true
    })?;
    Ok((kind, parts))
}

/// Segments, hints, manifest and index file.
fn files(disk: &MemStorage) -> Vec<PathBuf> {
    let mut files = disk.files(DIRECTORY);
    files.retain(|path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name == "MANIFEST" || name == "INDEX" || name.ends_with(".segment") || name.ends_with(".hint")
    });
    files
}

#[test]
fn every_byte_of_a_sound_file_belongs_to_one_part() {
    let (disk, options) = closed();
    let mut kinds = Vec::new();
    for path in files(&disk) {
        let (kind, parts) = parts(&path, &options).unwrap();
        kinds.push(kind);
        let mut end = 0;
        for (kind, offset, length) in &parts {
            assert!(*kind != PartKind::Damaged, "{path:?} at {offset}");
            assert_eq!(*offset, end, "{path:?}: {kind:?}");
            end += length;
        }
        let length = disk.read_file(&path).unwrap().len() as u64;
        // Hints and manifests end in a four-byte checksum that belongs to no part.
        let trailer = if matches!(kind, FileKind::Hint | FileKind::Manifest) {
            4
        } else {
            0
        };
        assert_eq!(end + trailer, length, "{path:?}");
    }
    for kind in [FileKind::Segment, FileKind::Hint, FileKind::Manifest, FileKind::Index] {
        assert!(kinds.contains(&kind), "{kind:?}");
    }
}

#[test]
fn no_flipped_bit_goes_unseen() {
    let (disk, options) = closed();
    for path in files(&disk) {
        let bytes = disk.read_file(&path).unwrap();
        let sound = parts(&path, &options).unwrap();
        // Index files are large, and their slots are alike.
        let step = if bytes.len() > 4096 { 97 } else { 1 };
        for at in (0..bytes.len()).step_by(step) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            disk.write_file(&path, &damaged).unwrap();
            let (_, parts) = parts(&path, &options).unwrap();
            assert!(
                parts.iter().any(|(kind, ..)| *kind == PartKind::Damaged),
                "{path:?}: changed byte {at} is not reported, and the parts are still {sound:?}"
            );
        }
        disk.write_file(&path, &bytes).unwrap();
    }
}

#[test]
fn what_lies_behind_damage_is_shown() {
    let (disk, options) = closed();
    let path = files(&disk)
        .into_iter()
        .find(|path| path.extension().is_some_and(|ending| ending == "segment"))
        .unwrap();
    let (_, sound) = parts(&path, &options).unwrap();
    let mut bytes = disk.read_file(&path).unwrap();
    let (_, first_put, length) = *sound.iter().find(|(kind, ..)| *kind == PartKind::Put).unwrap();
    bytes[(first_put + length - 9) as usize] ^= 1;
    disk.write_file(&path, &bytes).unwrap();
    let (_, damaged) = parts(&path, &options).unwrap();
    assert!(damaged.contains(&(PartKind::Damaged, first_put, length)), "{damaged:?}");
    for part in &sound {
        assert!(
            part.1 == first_put || part.0 == PartKind::Seal || damaged.contains(part),
            "{part:?} is not in {damaged:?}"
        );
    }
}

#[test]
fn a_look_can_be_ended_and_other_files_are_refused() {
    let (disk, options) = closed();
    let path = files(&disk).remove(0);
    let mut looks = 0;
    inspect(&path, &options, |_| {
        looks += 1;
        looks < 2
    })
    .unwrap();
    assert_eq!(looks, 2);
    disk.write_file(Path::new("/notes.txt"), b"EMBR").unwrap();
    let error = inspect("/notes.txt", &options, |_| true).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(
        inspect("/missing", &options, |_| true).unwrap_err().kind(),
        ErrorKind::Io
    );
    // The name is enough if the first bytes are missing.
    disk.write_file(Path::new("/store/0000000000000009.hint"), b"").unwrap();
    let (kind, shown) = parts(Path::new("/store/0000000000000009.hint"), &options).unwrap();
    assert_eq!((kind, shown[0].0), (FileKind::Hint, PartKind::Damaged));
}

#[test]
fn a_ring_is_shown_by_the_segments_that_it_continues() {
    let disk = MemStorage::new();
    let options = manual(Arc::new(disk.clone()))
        .segment_bytes(16 << 10)
        .ring(RingMode::Always);
    let store = options.clone().open(DIRECTORY).unwrap();
    let namespace = store.namespace("N").unwrap();
    let put = |key: &str| namespace.put_with(key, "v".repeat(300), class(Durability::Os)).unwrap();
    for number in 0..15 {
        put(&format!("{number}"));
    }
    store.flush().unwrap();
    for number in 0..3 {
        put(&format!("in the ring {number}"));
    }
    let ring = Path::new(DIRECTORY).join("RING");
    let mut keys = Vec::new();
    let kind = inspect(&ring, &options, |part| {
        assert!(part.offset < 4096);
        let segment = part.fields.iter().find(|(name, _)| *name == "continues segment");
        assert_eq!(segment.unwrap().1, PartValue::Number(1));
        for (name, value) in &part.fields {
            if let ("key", PartValue::Bytes(key)) = (*name, value) {
                keys.push(String::from_utf8_lossy(key).into_owned());
            }
        }
        true
    });
    assert_eq!(kind.unwrap(), FileKind::Ring);
    assert_eq!(keys, ["in the ring 0", "in the ring 1", "in the ring 2"]);
    let mut seen = 0;
    inspect(&ring, &options, |_| {
        seen += 1;
        false
    })
    .unwrap();
    assert_eq!(seen, 1, "it goes on although it was told to stop");
    store.flush().unwrap();
    assert_eq!(
        inspect(&ring, &options, |part| panic!("{part:?}")).unwrap(),
        FileKind::Ring
    );
}
