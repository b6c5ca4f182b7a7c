//! Writes the seed inputs of the targets that `command_seeds` does not cover into `corpus/`: golden
//! stores, small stores made for the purpose and pieces of them, and random operations. Their
//! content depends on the random numbers of a store; rerun only when the input format of a target
//! changes.
//!
//! `cargo run --manifest-path fuzz/Cargo.toml --example seeds`

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use embercask::storage::MemStorage;
use embercask::{Durability, Maintenance, ManualClock, PutOptions, Store};
use test_support::fuzz::{store_model, store_open};

type Files = Vec<(String, Vec<u8>)>;

/// SplitMix64.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }
}

fn save(target: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join(name), bytes)
}

fn is(name: &str, ending: &str) -> bool {
    name.ends_with(ending)
}

/// The files of a golden store.
fn golden(name: &str) -> io::Result<Files> {
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(name);
    let mut files = Files::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        files.push((
            entry.file_name().to_string_lossy().into_owned(),
            std::fs::read(entry.path())?,
        ));
    }
    files.sort();
    Ok(files)
}

/// The files of a small store, closed or killed after `lives` lives.
fn small(lives: usize, closed: bool) -> embercask::Result<Files> {
    let disk = MemStorage::new();
    for life in 0..lives {
        let store = Store::options()
            .segment_bytes(4096)
            .maintenance(Maintenance::Manual)
            .clock(ManualClock::new(1_700_000_000_000))
            .storage(Arc::new(disk.clone()))
            .open("/store")?;
        let (a, b) = (store.namespace("a")?, store.namespace("b")?);
        a.put("key", format!("value {life}"))?;
        a.put_with("for a while", "v", PutOptions::new().expires_at_ms(1_700_000_000_001))?;
        b.put_with(
            "with both",
            "v",
            PutOptions::new().metadata("m").expires_at_ms(4_102_444_800_000),
        )?;
        store
            .batch()
            .put(&a, "one", "1")
            .put(&b, "two", "2")
            .delete(&a, "for a while")
            .commit()?;
        b.put_with("torn", "v", PutOptions::new().durability(Durability::Os))?;
        if life + 1 < lives || closed {
            store.close()?;
        } else {
            // Killed: the files as they are now, without preallocated zeros.
            return Ok(files(&disk.crash_process(), &store));
        }
    }
    let files = disk.files("/store");
    Ok(named(&disk, &files))
}

fn files(disk: &MemStorage, _alive: &Store) -> Files {
    named(disk, &disk.files("/store"))
}

fn named(disk: &MemStorage, paths: &[PathBuf]) -> Files {
    let file = |path: &PathBuf| {
        let name = path.file_name()?.to_string_lossy().into_owned();
        Some((name, disk.read_file(path).ok()?))
    };
    let wanted = |(name, _): &(String, Vec<u8>)| name != "LOCK" && name != "RESERVE";
    paths.iter().filter_map(file).filter(wanted).collect()
}

/// Segments, hints and manifests, with the prefix that each target expects.
fn pieces(store: &str, files: &Files) -> io::Result<()> {
    for (name, bytes) in files {
        let stem = format!("{store}-{}", &name[..name.len().min(24)].trim_start_matches('0'));
        let raw = |mode: u8, bytes: &[u8]| [&[mode; 1][..], &[0; 6], bytes].concat();
        if is(name, ".segment") {
            // The salt, and base sequence 1. Every mode but "plain" repairs checksums, for segments
            // with another base.
            for (label, mode) in [("plain", 0), ("checked", 1), ("shaped", 15), ("struck", 1 | 1 << 4)] {
                let head = [&[mode], &bytes[12..16], &[0], &[9, 1, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0][..]].concat();
                let records = &bytes[64..bytes.len().min(1500)];
                save(
                    "segment_scan",
                    &format!("{stem}-{label}"),
                    &[&head[..], records].concat(),
                )?;
            }
            let mut at = 64;
            for n in 0..8 {
                let Some(record) = bytes.get(at..at + 160) else { break };
                let head = [
                    &[n & 1],
                    &bytes[12..16],
                    &bytes[40..48],
                    &((at / 8) as u32).to_le_bytes(),
                    &[n; 6][..],
                ]
                .concat();
                save("record_decode", &format!("{stem}-{n}"), &[&head[..], record].concat())?;
                at += 40 + 8 * usize::from(n);
            }
        } else if is(name, ".hint") {
            for mode in [0, 1, 4 | 2, 16 | 4 | 2, 8 | 4 | 1] {
                save("hint_load", &format!("{stem}-{mode}"), &raw(mode, bytes))?;
            }
        } else if name == "MANIFEST" {
            for mode in [0, 1, 4 | 2, 8 | 4 | 2, 16 | 8 | 4 | 1] {
                save("manifest_load", &format!("{stem}-{mode}"), &raw(mode, bytes))?;
            }
        }
    }
    Ok(())
}

/// The files without the index file, with which nothing else would be read.
fn by_log(files: &Files) -> Vec<(&str, Vec<u8>)> {
    let mut files = borrowed(files);
    files.retain(|(name, _)| *name != "INDEX");
    files
}

fn borrowed(files: &Files) -> Vec<(&str, Vec<u8>)> {
    files
        .iter()
        .map(|(name, bytes)| (name.as_str(), bytes.clone()))
        .collect()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let small_stores = [
        ("one", small(1, true)?),
        ("three", small(3, true)?),
        ("killed", small(2, false)?),
    ];
    for (label, files) in &small_stores {
        pieces(label, files)?;
        let files = by_log(files);
        for mode in [0, store_open::REPAIRED | store_open::RELATED, 0x7f] {
            save(
                "store_open",
                &format!("{label}-{mode:02x}"),
                &store_open::encode(mode, &files),
            )?;
        }
    }
    // The small closed store with damage in a value, in a record header, in a hint and in the
    // manifest.
    for (n, (ending, at)) in [(".segment", 313), (".segment", 300), (".hint", 61), ("MANIFEST", 70)]
        .into_iter()
        .enumerate()
    {
        let mut files = small_stores[0].1.clone();
        for (_, bytes) in files.iter_mut().filter(|(name, _)| is(name, ending)) {
            bytes[at] ^= 4;
        }
        save(
            "store_open",
            &format!("damaged-{n}"),
            &store_open::encode(0, &by_log(&files)),
        )?;
    }
    // The same store with its index file: unchanged; of another manifest; and with damage in the
    // keydir, in names and in the last expiry (which nothing else detects), with wrong and with
    // repaired checksums.
    const RIGHT: u8 = store_open::REPAIRED | store_open::COUNTED;
    for (name, at, mode) in [
        ("true", None, 0),
        ("generation", Some(28), RIGHT),
        ("keydir", Some(4_300), RIGHT | store_open::RELATED),
        ("names", Some(4_800), 0),
        ("names-repaired", Some(4_800), RIGHT | store_open::RELATED),
        ("expiry", Some(usize::MAX), 0),
        ("expiry-repaired", Some(usize::MAX), RIGHT | store_open::RELATED),
    ] {
        let mut files = small_stores[0].1.clone();
        for (_, bytes) in files.iter_mut().filter(|(name, _)| name == "INDEX") {
            let last = bytes.len() - 10;
            at.into_iter().for_each(|at: usize| bytes[at.min(last)] ^= 1);
        }
        save(
            "store_open",
            &format!("index-{name}"),
            &store_open::encode(mode, &borrowed(&files)),
        )?;
    }
    for name in ["v1", "v1-unclean", "v1-cut", "v2-ring"] {
        let files = golden(name)?;
        let files = borrowed(&files);
        save("store_open", name, &store_open::encode(0, &files))?;
    }
    // A hint that lists no records but has a nonzero checksum over keys: not to be trusted.
    let mut nothing = [&[6; 1][..], &[0; 6], &[0; 64]].concat();
    nothing[7 + 48] = 1;
    save("hint_load", "nothing", &nothing)?;
    // The hint of the target's own store: unchanged, and with strikes, with and without repaired
    // checksums.
    for (name, mode, strikes) in [
        ("true", 32, &[][..]),
        ("true-pread", 32 | 8, &[]),
        ("bit", 32, &[63, 0, 0]),
        ("bit-repaired", 32 | 2, &[63, 0, 0]),
        ("records-checksum-repaired", 32 | 2, &[44, 0, 0]),
        ("shorter", 32, &[90, 0, 5]),
        ("shorter-repaired", 32 | 2, &[90, 0, 5]),
        ("shorter-made-to-fit", 32 | 16 | 2, &[90, 0, 5]),
    ] {
        save("hint_load", name, &[&[mode][..], &[0; 6], strikes].concat())?;
    }
    let mut rng = Rng(1);
    for n in 0..24u8 {
        let operations = 1 + usize::from(n) * 2;
        save(
            "store_model",
            &format!("random-{n:02}"),
            &[&[n * 11][..], &rng.bytes(24 * operations)].concat(),
        )?;
    }
    // Half of the operations of these are of the later kinds: snapshots, watchers, transactions,
    // changes by value, deletes of ranges.
    for n in 0..16u8 {
        let mut rng = Rng(100 + u64::from(n));
        let mut pieces = rng.bytes(store_model::PIECE * (20 + 4 * usize::from(n)));
        for piece in pieces.chunks_mut(store_model::PIECE) {
            if rng.next().is_multiple_of(2) {
                piece[0] |= store_model::LATER;
            }
        }
        let input = [&[n * 11][..], &pieces].concat();
        save("store_model", &format!("held-{n:02}"), &input)?;
    }
    // Six puts, then a delete of all of them in batches of one key, which is cut off.
    let put = |key: u8| vec![0, 0, key, 1];
    let delete = vec![29, 0, 3, 0, 0, 0, 0, 0, 0, store_model::LATER | 22];
    let whole = |mut piece: Vec<u8>| {
        piece.resize(store_model::PIECE, 0);
        piece
    };
    let pieces = (0..6).map(put).chain([delete]).flat_map(whole);
    save("store_model", "cut-range", &[vec![0], pieces.collect()].concat())?;
    // A transaction whose first read is of a key that is deleted beside it.
    let transaction = vec![store_model::LATER | 12, 0x0b, 0, 4, 1, 4, 0, 5, 0x91];
    let pieces = [put(4), transaction].into_iter().flat_map(whole);
    save("store_model", "beside-delete", &[vec![0], pieces.collect()].concat())?;
    for mode in 0..32u8 {
        save(
            "cursor",
            &format!("made-{mode:02}"),
            &[&[mode | 32, 3, 5, mode % 3][..], b"user-1"].concat(),
        )?;
    }
    // Changes to the index file of the target's own store: in slots and counts of the keydir,
    // blocks of the key order, counters of segments, lengths of sections, nothing, everything.
    for (name, bytes) in [
        ("true", &[0][..]),
        ("slot", &[4, 128 + 7, 120, 0, 1, 2, 3, 4, 5, 6, 7, 8]),
        ("expiry-unrepaired", &[0, 128 + 64, 9, 0, 1]),
        ("generation", &[4, 128, 28, 0, 77]),
        ("capacity", &[4, 128 + 3, 104, 0, 1, 0, 0, 0]),
        ("many-slots", &[4, 128 + 3, 104, 0, 0xff, 0xff, 0xff, 0xff]),
        ("section", &[6, 128 + 1, 64, 0, 9, 9]),
        ("block", &[4, 128, 0, 0x14, 1, 128, 0x10, 0x14, 2]),
        ("account", &[4, 128, 0xf0, 0x14, 7]),
        ("bits", &[4, 0, 1, 20, 8, 0, 2, 20, 9]),
        ("bits-unrepaired", &[0, 0, 1, 20, 8]),
        ("cut", &[4, 0, 1, 20, 5]),
        ("zeros", &[4 | 8, 0, 1, 4, 4]),
    ] {
        save("index_load", name, bytes)?;
    }
    save("index_load", "whole", &[&[1 | 2 | 4][..], &[0; 200]].concat())?;
    save("cursor", "not-one", b"\0\0\0\0AAAA")?;
    for (name, value) in [
        ("plain", &b"\x04\0\0\0\x010123456789abcdefname"[..]),
        ("nothing", b"\x04\0\0\0\x01"),
        ("zero", b"\x04\0\0\0\x000123456789abcdefn"),
    ] {
        save("namespace_record", name, value)?;
    }
    for name in store_open::NAMES {
        save("file_name", name, name.as_bytes())?;
    }
    server()?;
    Ok(())
}

/// Inputs from clients of the server.
fn server() -> io::Result<()> {
    for (name, value) in [
        ("key", "a%2Fb?urlencoded=true&expiration_ttl=60"),
        ("list", "key_count_limit=10&prefix=user-&cursor=AAAA"),
        ("surrogate", "%ED%A0%80"),
        ("dots", "%2E%2E"),
        ("plus", "prefix=a+b%2B&prefix=second"),
        ("malformed", "prefix=%zz&%"),
        ("expiration", "4000000000"),
        ("lifetime", "5&100"),
    ] {
        save("server_path", name, value.as_bytes())?;
    }
    for (name, value) in [
        ("object", "{\"name\": \"Zo\u{eb}\", \"n\": [1, 2.50, -0, 1e400]}"),
        ("lines", "{\n  \"a b\": \"c \\\" d\"\n}"),
        ("null", "null"),
        ("text", "\"text\""),
        ("open", "{"),
    ] {
        save("server_metadata", name, value.as_bytes())?;
    }
    for mode in 0..32u8 {
        let made = [&[mode, 4][..], b"abcd", &[7], b"{\"a\":1}", b"the value\r\n--"].concat();
        save("server_form", &format!("made-{mode:02}"), &made)?;
    }
    let form = b"\0\x01a--bx61\r\nContent-Disposition: form-data; name=\"value\"\r\n\r\nv\r\n--bx61--\r\n";
    save("server_form", "whole", form)?;
    save(
        "server_form",
        "content-type",
        b"\0\0multipart/form-data; boundary=----abc",
    )?;
    for (name, value) in [
        (
            "puts",
            "[{\"key\":\"k\",\"value\":\"v\",\"expiration_ttl\":60,\"metadata\":{\"a\":1}}]",
        ),
        (
            "base64",
            "[{\"key\":\"k\",\"value\":\"AAH/\",\"base64\":true,\"expiration\":4000000000}]",
        ),
        ("names", "[\"a\",{\"name\":\"b\"}]"),
        (
            "get",
            "{\"keys\":[\"a\",\"b\",\"a\"],\"type\":\"json\",\"withMetadata\":true,\"cacheTtl\":\"60\"}",
        ),
        ("text", "{\"keys\":[\"a\"],\"type\":\"text\"}"),
        ("empty", "[]"),
    ] {
        save("server_bulk", name, value.as_bytes())?;
    }
    Ok(())
}
