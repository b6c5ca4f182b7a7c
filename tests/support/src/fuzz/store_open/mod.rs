//! Fuzz target `store_open`: files of any content in the directory of a store. It opens or reports
//! the damage; what it shows can be read, verified, compacted and written to; and salvage recovers
//! what opening shows.
//!
//! An input is one mode byte, then files: for each, one byte for its name, two for its length, and
//! its content. See [`encode`].

mod by_index_file;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use embercask::storage::MemStorage;
use embercask::{
    Error, Maintenance, ManualClock, Options, PartKind, ReadMode, Result, Store, VerifyReport, inspect, salvage, verify,
};

use crate::way::Way;
use embercask::testing::input::Input;
use embercask::testing::repair::{self, Repair};

const DIRECTORY: &str = "/store";
const SAVED: &str = "/saved";
/// Later than every expiry in the golden stores.
const NOW_MS: u64 = 1_800_000_000_000;

/// Names of files that an input can hold.
pub const NAMES: [&str; 23] = [
    "MANIFEST",
    "0000000000000001.segment",
    "0000000000000002.segment",
    "0000000000000003.segment",
    "0000000000000004.segment",
    "0000000000000005.segment",
    "0000000000000006.segment",
    "0000000000010001.segment",
    "0000000000000001.hint",
    "0000000000000002.hint",
    "0000000000000003.hint",
    "0000000000000004.hint",
    "0000000000000005.hint",
    "0000000000000006.hint",
    "MANIFEST.tmp",
    "LOCK",
    "RESERVE",
    "ffffffffffffffff.segment",
    "00000000000000AB.segment",
    "notes.txt",
    "UNFINISHED",
    "INDEX",
    "RING",
];

/// Repair the checksums of all files.
pub const REPAIRED: u8 = 1;
/// Give segments and hints the manifest's store id and the ids in their names, and the index file
/// this manifest's identity.
pub const RELATED: u8 = 2;
/// Read without maps.
const PREAD: u8 = 4;
/// The next three bits select a [`Repair`]; `COUNTED` also repairs counts and lengths in manifest,
/// hints and index file.
const REPAIR_SHIFT: u8 = 3;
pub const COUNTED: u8 = 64;

type Files = Vec<(&'static str, Vec<u8>)>;
type Listing = BTreeMap<(String, Vec<u8>), (Vec<u8>, Option<Vec<u8>>, Option<u64>)>;

/// Encodes these files as an input, for seeds. Skips files whose names are not in [`NAMES`].
pub fn encode(mode: u8, files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut input = vec![mode];
    for (name, bytes) in files {
        if let Some(index) = NAMES.iter().position(|known| known == name) {
            input.push(index as u8);
            input.extend_from_slice(&(bytes.len() as u16).to_le_bytes());
            input.extend_from_slice(bytes);
        }
    }
    input
}

fn decode(input: &mut Input<'_>) -> Files {
    let mut files = Files::new();
    while !input.is_empty() && files.len() < 2 * NAMES.len() {
        let (name, length) = (input.choose(&NAMES), usize::from(input.u16()));
        files.push((name, input.bytes(length).to_vec()));
    }
    files
}

/// Opens a store made of arbitrary files, and uses it in every way.
pub fn store_open(data: &[u8]) {
    let mut input = Input::new(data);
    let mode = input.u8();
    let mut files = decode(&mut input);
    if mode & RELATED != 0 {
        relate(&mut files);
    }
    if mode & REPAIRED != 0 {
        let (what, related) = (Repair::from_bits(mode >> REPAIR_SHIFT), mode & RELATED != 0);
        repair(&mut files, what, related, mode & COUNTED != 0);
    }
    let disk = || {
        let disk = MemStorage::new();
        disk.create_directory(Path::new(DIRECTORY)).unwrap();
        for (name, bytes) in &files {
            disk.write_file(Path::new(DIRECTORY).join(name), bytes).unwrap();
        }
        disk
    };
    let read_mode = if mode & PREAD == 0 {
        ReadMode::Map
    } else {
        ReadMode::Pread
    };
    inspected(&disk(), &files);
    let saved = save(&disk(), read_mode);
    let by_log = disk();
    Way::Hints.prepare(&by_log, DIRECTORY);
    if last(&files, "INDEX").is_some() {
        by_index_file::check(&disk(), &by_log.crash_process(), read_mode, mode & REPAIRED != 0);
    }
    let opened = live(&by_log, read_mode);
    // After a clean close and without damage, opening and salvage agree.
    if let (Some(opened), Some(saved)) = (opened, saved) {
        assert_eq!(saved, opened, "salvage recovers something other than opening shows");
    }
}

/// Of several files with the same name, the last counts.
fn last<'a>(files: &'a Files, name: &str) -> Option<&'a [u8]> {
    let (_, bytes) = files.iter().rfind(|(other, _)| *other == name)?;
    Some(bytes)
}

/// Inspects every file: parts must be in order and inside the file.
fn inspected(disk: &MemStorage, files: &Files) {
    let options = options(disk, ReadMode::Pread);
    for (name, bytes) in files {
        let (mut end, mut damaged) = (0, false);
        let shown = inspect(Path::new(DIRECTORY).join(name), &options, |part| {
            damaged |= part.kind == PartKind::Damaged;
            // Damage inside a part may be reported once more after it, and a ring goes round.
            assert!(
                part.kind == PartKind::Damaged || part.offset >= end || *name == "RING",
                "{part:?} begins before {end}"
            );
            end = end.max(part.offset + part.length);
            true
        });
        if let Err(error) = shown {
            assert!(
                matches!(error, Error::NewerFormat { .. } | Error::InvalidInput { .. }),
                "{error:?}"
            );
            continue;
        }
        if last(files, name) != Some(bytes) {
            continue;
        }
        let length = bytes.len() as u64;
        assert!(end <= length || *name == "RING", "{name}: {end} of {length}");
        if bytes.starts_with(b"EMBRINDX") {
            assert_eq!(damaged, !repair::is_sound_index(bytes), "{name}: damage is told");
            assert_eq!(end, length, "{name}: every byte is in a part");
        }
    }
}

/// Gives all files the manifest's store id, and each the id in its name.
fn relate(files: &mut Files) {
    let of_store = |files: &Files| {
        files
            .iter()
            .find(|(name, _)| *name == "MANIFEST")?
            .1
            .get(12..28)
            .map(<[u8]>::to_vec)
    };
    let Some(store) = of_store(files) else { return };
    for (name, bytes) in files {
        let at = match name.split_once('.') {
            Some((_, "segment")) => 16,
            Some((_, "hint")) => 12,
            _ => continue,
        };
        let id = u64::from_str_radix(&name[..16], 16).unwrap_or_default();
        if let Some(place) = bytes.get_mut(at..at + 24) {
            place[..16].copy_from_slice(&store);
            place[16..].copy_from_slice(&id.to_le_bytes());
        }
    }
}

fn repair(files: &mut Files, what: Repair, related: bool, counted: bool) {
    // The index file last, because it contains the checksum of the manifest.
    files.sort_by_key(|(name, _)| *name == "INDEX");
    let mut manifest = Vec::new();
    for (name, bytes) in files {
        if related && *name == "INDEX" {
            repair::index_of(bytes, &manifest);
        }
        match name.split_once('.') {
            Some((_, "segment")) => {
                repair::segment_header(bytes);
                repair::records(bytes, what);
            }
            Some((_, "hint")) if counted => repair::hint(bytes),
            Some((_, "hint")) => repair::envelope(bytes, b"EMBRHINT"),
            _ if name.starts_with("MANIFEST") && counted => repair::manifest(bytes),
            _ if name.starts_with("MANIFEST") => repair::manifest_envelope(bytes),
            _ if *name == "INDEX" && counted => repair::index(bytes),
            _ if *name == "INDEX" => repair::index_head(bytes),
            _ => {}
        }
        if *name == "MANIFEST" {
            manifest.clone_from(bytes);
        }
    }
}

fn options(disk: &MemStorage, read_mode: ReadMode) -> Options {
    Store::options()
        .segment_bytes(4096)
        .maintenance(Maintenance::Manual)
        .read_mode(read_mode)
        .clock(ManualClock::new(NOW_MS))
        .storage(Arc::new(disk.clone()))
}

/// Everything the store shows, read in every way.
fn listing(store: &Store) -> Result<Listing> {
    let mut listing = Listing::new();
    for info in store.namespaces()? {
        let namespace = store.open_namespace(&info.name)?;
        let mut keys = Vec::new();
        for entry in namespace.list().page_size(3).with_values() {
            let entry = entry?;
            let value = entry.value().unwrap();
            let got = namespace.get(entry.key())?.expect("a listed key exists");
            assert_eq!(got.as_bytes(), value.as_bytes());
            assert!(namespace.contains(entry.key())?);
            keys.push(entry.key().to_vec());
            let content = (value.to_vec(), value.metadata().map(<[u8]>::to_vec), value.expiry_ms());
            listing.insert((info.name.clone(), entry.key().to_vec()), content);
        }
        assert!(keys.is_sorted_by(|a, b| a < b), "keys are out of order or repeated");
        assert_eq!(namespace.count()?, keys.len() as u64);
        let mut reversed = namespace
            .list()
            .reverse()
            .into_iter()
            .map(|entry| Ok(entry?.key().to_vec()))
            .collect::<Result<Vec<_>>>()?;
        reversed.reverse();
        assert_eq!(reversed, keys);
    }
    Ok(listing)
}

/// Damage is a valid outcome if the error says what is damaged.
#[track_caller]
fn told(error: &Error) {
    assert!(
        matches!(
            error,
            Error::Corruption { .. } | Error::NewerFormat { .. } | Error::NotAStore { .. }
        ),
        "the error does not say what is wrong with the files: {error:?}"
    );
}

/// Opens the store and, if that succeeds, uses it in every way. Returns what it showed if it was
/// cleanly closed before and is sound.
fn live(disk: &MemStorage, read_mode: ReadMode) -> Option<Listing> {
    let before = records(disk);
    let files = verify(DIRECTORY, &options(&disk.crash_process(), read_mode)).inspect_err(told);
    let store = match options(disk, read_mode).open(DIRECTORY) {
        Ok(store) => store,
        Err(error) => {
            told(&error);
            assert!(
                !matches!((&error, &files), (Error::Corruption { .. }, Ok(report)) if report.is_sound()),
                "it does not open, although verify finds nothing wrong with its files: {error}"
            );
            assert_eq!(records(disk), before, "a failed opening changed the files");
            assert!(
                options(disk, read_mode).open(DIRECTORY).is_err(),
                "it opens the second time, after: {error}"
            );
            return None;
        }
    };
    let clean = store.recovery_report().clean;
    let shown = listing(&store).inspect_err(told).ok();
    invents_nothing(&before, shown.as_ref());
    let report = store.verify().unwrap();
    let sound = report.is_sound();
    assert!(
        shown.is_some() || !sound,
        "unreadable, although verify finds nothing wrong"
    );
    let written = used(&store, &report);
    let outcome = written.and_then(|()| {
        let shown = listing(&store)?;
        store.close()?;
        Ok(shown)
    });
    let outcome = outcome.and_then(|shown| by_index_file::reopened(disk, read_mode, &shown, sound));
    if let Err(error) = outcome {
        told(&error);
        assert!(!sound, "a failure although verify finds nothing wrong: {error}");
    }
    shown.filter(|_| clean && sound)
}

/// Everything shown exists in a segment, or in the ring, as a put whose body matches its checksum.
fn invents_nothing(files: &BTreeMap<String, Vec<u8>>, shown: Option<&Listing>) {
    // A record in the ring may reach around its end.
    let around = files.get("RING").map(|ring| ring.repeat(2));
    let all = files.values().chain(&around);
    let sound: Vec<_> = all.flat_map(|bytes| repair::sound_bodies(bytes)).collect();
    for ((name, key), (value, metadata, _)) in shown.into_iter().flatten() {
        let body = [key, metadata.as_deref().unwrap_or_default(), value].concat();
        assert!(
            sound.contains(&(metadata.as_ref().map(Vec::len), &body)),
            "{name}/{} is shown with bytes that no sound record holds",
            key.escape_ascii()
        );
    }
}

/// Puts, deletes, compacts.
fn used(store: &Store, report: &VerifyReport) -> Result<()> {
    let before = listing(store);
    let namespace = store.namespace("used")?;
    namespace.put("a key of its own", "v")?;
    namespace.put("another", [7; 5000])?;
    assert!(namespace.delete("a key of its own")?.existed);
    store.maintain()?;
    store.compact()?;
    assert_eq!(namespace.get("another")?.unwrap(), [7; 5000]);
    assert!(!namespace.contains("a key of its own")?);
    assert!(namespace.delete("another")?.existed);
    if let Ok(before) = before {
        assert_eq!(
            listing(store)?,
            before,
            "compaction changed what the store shows: {report:?}"
        );
    }
    // Damage may remain: compaction does not read segments without waste.
    if report.is_sound() {
        let report = store.verify()?;
        assert!(report.is_sound(), "after compaction: {report:?}");
    }
    Ok(())
}

/// The files that hold records.
fn records(disk: &MemStorage) -> BTreeMap<String, Vec<u8>> {
    let named = disk.files(DIRECTORY).into_iter().map(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        (name, disk.read_file(&path).unwrap())
    });
    named
        .filter(|(name, _)| ["MANIFEST", "RING"].contains(&&**name) || name.ends_with(".segment"))
        .collect()
}

/// Salvages the store. Returns what the new store shows, if nothing was lost.
fn save(disk: &MemStorage, read_mode: ReadMode) -> Option<Listing> {
    let before = records(disk);
    let report = match salvage(DIRECTORY, SAVED, options(disk, read_mode)) {
        Ok(report) => report,
        Err(error) => {
            told(&error);
            return None;
        }
    };
    assert_eq!(records(disk), before, "salvage changed its source");
    let store = options(disk, read_mode).create(false).open(SAVED).unwrap();
    let shown = listing(&store).unwrap();
    invents_nothing(&before, Some(&shown));
    assert_eq!(shown.len() as u64, report.keys);
    let verified = store.verify().unwrap();
    assert!(verified.is_sound(), "a salvaged store is not sound: {verified:?}");
    report.is_complete().then_some(shown)
}
