use super::*;
use crate::clock::Clock;
use crate::storage::MemStorage;
use crate::{Durability, Maintenance, ManualClock, Namespace, Options, ReadMode, Store};

const NOW_MS: u64 = 1_700_000_000_000;
/// A byte a millisecond.
const RATE: u64 = 1_000;

fn options(disk: &MemStorage, clock: &ManualClock) -> Options {
    Store::options()
        .maintenance(Maintenance::Manual)
        .durability(Durability::Os)
        .read_mode(ReadMode::Pread)
        .scrub_bytes_per_second(Some(RATE))
        .clock(clock.clone())
        .storage(Arc::new(disk.clone()))
}

/// Small records, records with expiry and metadata, batches and tombstones, in several segments.
fn fill(store: &Store, namespace: &Namespace) {
    for n in 0..60 {
        namespace.put(format!("{n}"), vec![0; n * 3]).unwrap();
        let put = crate::PutOptions::new()
            .metadata("{}")
            .expires_at_ms(NOW_MS + (1 << 40));
        namespace.put_with(format!("with more {n}"), vec![7; n], put).unwrap();
        if n % 5 == 0 {
            let mut batch = store.batch();
            for key in 0..n {
                batch.put(namespace, format!("batch {key}"), vec![1; n]);
            }
            batch.commit().unwrap();
            namespace.delete(format!("batch {n}")).unwrap();
        }
    }
    store.maintain().unwrap();
}

fn sealed(store: &Store) -> Vec<Ended> {
    let segments = store.engine().log.all_segments().ended;
    let ended = segments.iter().map(|segment| Ended {
        header: segment.header,
        summary: segment.summary.unwrap(),
        cut: segment.cut,
    });
    ended.collect()
}

/// Reads a segment in pieces of this length, checking after each.
fn in_pieces(context: &Context, ended: Ended, bytes: &[u8], length: usize) -> Result<()> {
    let mut reading = Reading::of(ended);
    assert_eq!(reading.end, bytes.len() as u64);
    // The header comes at once.
    let first = length.max(crate::format::segment::SEGMENT_HEADER_LEN as usize);
    let (first, rest) = bytes.split_at(first.min(bytes.len()));
    for piece in std::iter::once(first).chain(rest.chunks(length)) {
        reading.bytes.extend_from_slice(piece);
        reading.read_end += piece.len() as u64;
        reading.check(context)?;
    }
    Ok(())
}

#[test]
fn a_segment_passes_in_pieces_of_any_length_and_damage_does_in_none() {
    let (disk, clock) = (MemStorage::new(), ManualClock::new(NOW_MS));
    let store = options(&disk, &clock).segment_bytes(4096).open("/store").unwrap();
    let namespace = store.namespace("N").unwrap();
    fill(&store, &namespace);
    let context = &store.engine().context;
    let mut flipped = 0;
    for ended in sealed(&store) {
        let path = context.segment_path(ended.header.segment_id);
        let mut bytes = disk.read_file(&path).unwrap();
        for length in 1..300 {
            let passed = in_pieces(context, ended, &bytes, length);
            assert!(passed.is_ok(), "{} in pieces of {length}: {passed:?}", path.display());
        }
        for at in (0..bytes.len()).step_by(7) {
            bytes[at] ^= 1 << (at % 8);
            let error = in_pieces(context, ended, &bytes, 1 + at % 300).unwrap_err();
            assert!(
                matches!(&error, Error::Corruption { path: named, offset, .. } if *named == path && *offset <= at as u64),
                "byte {at}: {error}"
            );
            bytes[at] ^= 1 << (at % 8);
            flipped += 1;
        }
        // A block of zeros is no end of the data, not even where a record or the seal begins.
        for from in [
            SegmentHeader::decode(&bytes).map_or(0, |_| 64),
            ended.summary.data_end as usize,
        ] {
            let mut bytes = bytes.clone();
            bytes[from..].fill(0);
            in_pieces(context, ended, &bytes, 100).unwrap_err();
        }
    }
    assert!(flipped > 2_000, "{flipped}");
}

/// Records and batches that are longer than what is read or checked at once.
#[test]
fn a_pass_reads_each_byte_of_the_sealed_segments_once_whatever_their_records_are() {
    let (disk, clock) = (MemStorage::new(), ManualClock::new(NOW_MS));
    let store = options(&disk, &clock).segment_bytes(4 << 20).open("/store").unwrap();
    let namespace = store.namespace("N").unwrap();
    for round in 0..3u8 {
        namespace.put(format!("large {round}"), vec![round; 3 << 20]).unwrap();
        for n in 0..500 {
            namespace
                .put(format!("{round} {n}"), vec![round; n * 7 % 5_000])
                .unwrap();
        }
        let mut batch = store.batch();
        for n in 0..40 {
            batch.put(&namespace, format!("batch {round} {n}"), vec![0; 50_000]);
        }
        batch.commit().unwrap();
    }
    store.maintain().unwrap();
    let engine = store.engine();
    let files = || sealed(&store).into_iter().map(|ended| Reading::of(ended).end);
    assert!(files().count() >= 3 && files().sum::<u64>() > 9 << 20);
    let mut random = 1u64;
    let mut pass = || {
        let before = engine.scrub.stats();
        while engine.scrub.stats().passes == before.passes {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            clock.advance((random >> 33) % 700_000);
            engine.scrub.go_on();
            let round = lock(&engine.scrub.round);
            let held = round.reading.as_ref().map_or(0, |reading| reading.bytes.capacity());
            assert!(held < 7 << 20, "{held} bytes are kept");
        }
        let after = engine.scrub.stats();
        (after.bytes - before.bytes, after.damaged_segments)
    };
    assert_eq!(pass(), (files().sum(), 0));
    // In the last record of a batch.
    let last = sealed(&store).into_iter().find_map(|ended| {
        let path = engine.context.segment_path(ended.header.segment_id);
        let bytes = disk.read_file(&path).unwrap();
        let at = bytes.windows(10).position(|window| window == b"batch 0 39")?;
        Some((path, at as u64))
    });
    let (path, at) = last.unwrap();
    disk.flip_bit(&path, (at + 40_000) * 8).unwrap();
    assert_eq!(pass().1, 1);
    let [error] = &engine.scrub.stats().errors[..] else {
        panic!()
    };
    assert!(error.contains(&path.display().to_string()), "{error}");
    disk.flip_bit(&path, (at + 40_000) * 8).unwrap();
    assert_eq!(pass(), (files().sum(), 0));
}

#[test]
fn what_may_be_read_follows_the_time_to_the_thousandth_of_a_byte() {
    let mut round = Round::default();
    for ms in 1..=1_000 {
        round.allow(7, ms);
        assert_eq!(round.allowed_bytes(), ms * 7 / 1000);
    }
    round.spend(7);
    assert_eq!(round.allowance, 0);
    round.allow(u64::MAX, u64::MAX);
    assert_eq!(round.allowed_bytes(), u64::MAX);
    round.spend(u64::MAX);
    // The clock has not moved.
    let before = round.allowance;
    round.allow(7, u64::MAX);
    assert_eq!(round.allowance, before);
}

/// Whatever the rate, the thread neither spins nor sleeps for ever.
#[test]
fn the_thread_sleeps_until_a_read_is_worth_it() {
    let clock = ManualClock::new(NOW_MS);
    for (rate, millis) in [(1, 1_000), (1 << 20, 250), (4 << 20, 62), (1 << 30, 20), (u64::MAX, 20)] {
        let options = options(&MemStorage::new(), &clock).scrub_bytes_per_second(Some(rate));
        let store = options.open("/store").unwrap();
        assert_eq!(store.engine().scrub.sleep().as_millis(), millis, "{rate}");
    }
    assert_eq!(clock.monotonic_ms(), 0);
}
