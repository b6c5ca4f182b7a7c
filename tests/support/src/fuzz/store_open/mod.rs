//! Fuzz target `store_open`: files of any content in the directory of a store. It opens, or says
//! what is damaged; what it shows can be read, verified, compacted and written to; and salvage gets
//! out of it what opening shows.
//!
//! An input is one byte that says how it is used, and files, each as a byte for its name, two for
//! its length, and its bytes. See [`encode`].

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
/// Later than anything that the golden stores let expire.
const NOW_MS: u64 = 1_800_000_000_000;

/// Names of files that an input can hold.
pub const NAMES: [&str; 22] = [
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
];

/// Checksums of all files are put right.
pub const REPAIRED: u8 = 1;
/// Segments and hints say that they are of the manifest's store, and what their names say; an index
/// file, that it is of this manifest.
pub const RELATED: u8 = 2;
/// Read without maps.
const PREAD: u8 = 4;
/// The next three bits are those of [`Repair`]; the last is of manifest, hints and index file,
/// whose counts and lengths are put right too.
const REPAIR_SHIFT: u8 = 3;
pub const COUNTED: u8 = 64;

type Files = Vec<(&'static str, Vec<u8>)>;
type Listing = BTreeMap<(String, Vec<u8>), (Vec<u8>, Option<Vec<u8>>, Option<u64>)>;

/// The input that says these files, for seeds. Files of other names than [`NAMES`] are left out.
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

/// Opens a store of any files, and does everything with it that can be done.
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
    // Where nothing had to be found out and nothing is damaged, the two ways to read a store agree.
    if let (Some(opened), Some(saved)) = (opened, saved) {
        assert_eq!(saved, opened, "salvage gets out something else than opening shows");
    }
}

/// Of several files of a name the last counts.
fn last<'a>(files: &'a Files, name: &str) -> Option<&'a [u8]> {
    let (_, bytes) = files.iter().rfind(|(other, _)| *other == name)?;
    Some(bytes)
}

/// Shows every file part by part: in order, and nothing that is not in it.
fn inspected(disk: &MemStorage, files: &Files) {
    let options = options(disk, ReadMode::Pread);
    for (name, bytes) in files {
        let (mut end, mut damaged) = (0, false);
        let shown = inspect(Path::new(DIRECTORY).join(name), &options, |part| {
            damaged |= part.kind == PartKind::Damaged;
            // What is damaged inside a part may be told once more behind it.
            assert!(
                part.kind == PartKind::Damaged || part.offset >= end,
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
        assert!(end <= length, "{name}: {end} of {length}");
        if bytes.starts_with(b"EMBRINDX") {
            assert_eq!(damaged, !repair::is_sound_index(bytes), "{name}: damage is told");
            assert_eq!(end, length, "{name}: every byte is in a part");
        }
    }
}

/// Gives all files the manifest's store, and each the id of its name.
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
    // The index file last: it says the checksum of the manifest.
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
            _ if name.starts_with("MANIFEST") => repair::envelope(bytes, b"EMBRMANI"),
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

/// Everything that the store shows, looked at in every way.
fn listing(store: &Store) -> Result<Listing> {
    let mut listing = Listing::new();
    for info in store.namespaces()? {
        let namespace = store.open_namespace(&info.name)?;
        let mut keys = Vec::new();
        for entry in namespace.list().limit(3).with_values() {
            let entry = entry?;
            let value = entry.value().unwrap();
            let got = namespace.get(entry.key())?.expect("a key that is listed is there");
            assert_eq!(got.as_bytes(), value.as_bytes());
            assert!(namespace.contains(entry.key())?);
            keys.push(entry.key().to_vec());
            let content = (value.to_vec(), value.metadata().map(<[u8]>::to_vec), value.expiry_ms());
            listing.insert((info.name.clone(), entry.key().to_vec()), content);
        }
        assert!(keys.is_sorted_by(|a, b| a < b), "keys come in order, and each once");
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

/// Damage is an answer, if it is told which.
#[track_caller]
fn told(error: &Error) {
    assert!(
        matches!(
            error,
            Error::Corruption { .. } | Error::NewerFormat { .. } | Error::NotAStore { .. }
        ),
        "not an error that tells what is wrong with the files: {error:?}"
    );
}

/// Opens, and if that goes well uses the store in every way. What it showed if it was closed
/// cleanly before and is sound.
fn live(disk: &MemStorage, read_mode: ReadMode) -> Option<Listing> {
    let before = records(disk);
    let files = verify(DIRECTORY, &options(&disk.crash_process(), read_mode)).inspect_err(told);
    let store = match options(disk, read_mode).open(DIRECTORY) {
        Ok(store) => store,
        Err(error) => {
            told(&error);
            assert!(
                !matches!((&error, &files), (Error::Corruption { .. }, Ok(report)) if report.is_sound()),
                "it does not open, and nothing is wrong with its files: {error}"
            );
            assert_eq!(records(disk), before, "opening failed, and has changed something");
            assert!(
                options(disk, read_mode).open(DIRECTORY).is_err(),
                "only the first time: {error}"
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
        "cannot be read, and verify finds nothing wrong"
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
        assert!(!sound, "verify finds nothing wrong: {error}");
    }
    shown.filter(|_| clean && sound)
}

/// Whatever is shown lies in a segment as a put whose body fits its checksum.
fn invents_nothing(files: &BTreeMap<String, Vec<u8>>, shown: Option<&Listing>) {
    let sound: Vec<_> = files.values().flat_map(|bytes| repair::sound_bodies(bytes)).collect();
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
    assert!(namespace.delete("a key of its own")?);
    store.maintain()?;
    store.compact()?;
    assert_eq!(namespace.get("another")?.unwrap(), [7; 5000]);
    assert!(!namespace.contains("a key of its own")?);
    assert!(namespace.delete("another")?);
    if let Ok(before) = before {
        assert_eq!(
            listing(store)?,
            before,
            "compaction has changed what is shown: {report:?}"
        );
    }
    // Damage stays where it is: compaction does not read segments in which nothing is wasted.
    if report.is_sound() {
        let report = store.verify()?;
        assert!(report.is_sound(), "after compaction: {report:?}");
    }
    Ok(())
}

/// The files that hold what was written.
fn records(disk: &MemStorage) -> BTreeMap<String, Vec<u8>> {
    let named = disk.files(DIRECTORY).into_iter().map(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        (name, disk.read_file(&path).unwrap())
    });
    named
        .filter(|(name, _)| name == "MANIFEST" || name.ends_with(".segment"))
        .collect()
}

/// Salvages; what the new store shows, if nothing was lost.
fn save(disk: &MemStorage, read_mode: ReadMode) -> Option<Listing> {
    let before = records(disk);
    let report = match salvage(DIRECTORY, SAVED, options(disk, read_mode)) {
        Ok(report) => report,
        Err(error) => {
            told(&error);
            return None;
        }
    };
    assert_eq!(records(disk), before, "salvage has changed what it reads");
    let store = options(disk, read_mode).create(false).open(SAVED).unwrap();
    let shown = listing(&store).unwrap();
    invents_nothing(&before, Some(&shown));
    assert_eq!(shown.len() as u64, report.keys);
    let verified = store.verify().unwrap();
    assert!(verified.is_sound(), "a salvaged store is sound: {verified:?}");
    report.is_complete().then_some(shown)
}
