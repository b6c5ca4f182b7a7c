//! Hints are derived: a wrong one is rebuilt and does no harm.

use embercask::ReadMode;

use crate::recovery::{closed, content, killed, try_open};
use test_support::way::Way;
use test_support::{DIRECTORY, ending, open};

/// B13.
#[test]
fn a_hint_of_another_segment_is_ignored_and_made_anew() {
    let (disk, expected) = closed();
    Way::Hints.prepare(&disk, DIRECTORY);
    let hints = ending(&disk, ".hint");
    assert!(hints.len() >= 3);
    let bytes: Vec<_> = hints.iter().map(|path| disk.read_file(path).unwrap()).collect();
    for first in 0..hints.len() {
        for second in 0..first {
            let copy = disk.crash_process();
            copy.write_file(&hints[first], &bytes[second]).unwrap();
            copy.write_file(&hints[second], &bytes[first]).unwrap();
            let store = open(&copy);
            assert_eq!(content(&store).unwrap(), expected);
            let report = store.recovery_report();
            assert_eq!(report.hints_rebuilt, 2, "{report:?}");
            assert_eq!(report.hints_used, hints.len() as u64 - 2, "{report:?}");
            assert!(report.clean);
            for (path, bytes) in hints.iter().zip(&bytes) {
                assert_eq!(copy.read_file(path).unwrap(), *bytes, "the rebuilt hint differs");
            }
        }
    }
}

#[test]
fn a_damaged_cut_or_missing_hint_is_made_anew_and_changes_nothing() {
    let (disk, expected) = closed();
    Way::Hints.prepare(&disk, DIRECTORY);
    let hint = ending(&disk, ".hint").remove(0);
    let bytes = disk.read_file(&hint).unwrap();
    let check = |damaged: Option<Vec<u8>>, context: String| {
        let copy = disk.crash_process();
        match damaged {
            Some(damaged) => copy.write_file(&hint, &damaged).unwrap(),
            None => copy.remove_file(&hint).unwrap(),
        }
        let store = open(&copy);
        assert_eq!(content(&store).unwrap(), expected, "{context}");
        let report = store.recovery_report();
        assert!(
            !report.index_file_used && report.hints_rebuilt == 1,
            "{context}: {report:?}"
        );
        drop(store);
        let prepared = Way::Hints.prepare(&copy, DIRECTORY);
        prepared.assert_taken(open(&copy).recovery_report());
        assert_eq!(copy.read_file(&hint).unwrap(), bytes, "{context}");
    };
    check(None, "missing".to_owned());
    check(Some(Vec::new()), "empty".to_owned());
    check(Some([&bytes[..], &[0; 8]].concat()), "longer".to_owned());
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        check(Some(damaged), format!("byte {at}"));
        check(Some(bytes[..at].to_vec()), format!("cut at {at}"));
    }
}

/// Found by the fuzz target `hint_load`: opening mistook a wrong hint for damage of its sound
/// segment.
#[test]
fn a_hint_whose_own_checksum_fits_but_whose_offsets_lead_nowhere_is_made_anew() {
    let (disk, expected) = closed();
    Way::Hints.prepare(&disk, DIRECTORY);
    for hint in ending(&disk, ".hint") {
        let bytes = disk.read_file(&hint).unwrap();
        for entry in (60..bytes.len() - 4).step_by(3) {
            let copy = disk.crash_process();
            let mut wrong = bytes.clone();
            wrong[entry] ^= 1;
            let content = wrong.len() - 4;
            let crc = crc32fast::hash(&wrong[..content]);
            wrong[content..].copy_from_slice(&crc.to_le_bytes());
            copy.write_file(&hint, &wrong).unwrap();
            let context = format!("{}, entry at {entry}", hint.display());
            let store = try_open(&copy, ReadMode::Map).unwrap_or_else(|error| panic!("{context}: {error}"));
            assert_eq!(crate::recovery::content(&store).unwrap(), expected, "{context}");
            assert_eq!(store.recovery_report().hints_rebuilt, 1, "{context}");
            assert_eq!(copy.read_file(&hint).unwrap(), bytes, "{context}");
        }
    }
}

/// Invariant 1: hints are derived.
#[test]
fn without_any_hint_and_without_some_nothing_is_lost() {
    for (disk, expected) in [closed(), {
        let (disk, history) = killed();
        (disk, history.last().unwrap().clone())
    }] {
        for way in [Way::Records, Way::Mixed(1), Way::Mixed(2)] {
            let disk = disk.crash_process();
            let prepared = way.prepare(&disk, DIRECTORY);
            let store = open(&disk);
            prepared.assert_taken(store.recovery_report());
            assert_eq!(content(&store).unwrap(), expected, "{way:?}");
        }
    }
}
