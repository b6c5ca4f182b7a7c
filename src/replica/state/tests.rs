use embercask::Store;

use super::*;

fn state() -> State {
    State {
        cluster: 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef,
        position: 12,
        digest: [9; 16],
        time: LogTime {
            ms: 1_800_000_000_000,
            eighths: 5,
            last_stamp_ms: 1_799_999_999_000,
        },
        checksum: 7,
    }
}

#[test]
fn a_state_is_read_as_it_was_written_and_nothing_else_is() {
    let bytes = state().encode();
    assert_eq!(State::decode(&bytes), Some(state()));
    for length in 0..bytes.len() {
        assert_eq!(State::decode(&bytes[..length]), None);
    }
    assert_eq!(State::decode(&[&bytes[..], &[0]].concat()), None);
    let mut newer = bytes;
    newer[0] = 2;
    assert_eq!(State::decode(&newer), None);
}

#[test]
fn a_store_becomes_the_seed_of_one_cluster() {
    let store = Store::in_memory().unwrap();
    assert!(read(&store).unwrap().is_none());
    assert!(matches!(reserved(&store), Err(StateError::NotAReplica)));
    // As after a call that ended in between.
    store.create_namespace_with_id(RESERVED_NAME, RESERVED_ID).unwrap();
    init(&store, 5).unwrap();
    assert_eq!(read(&store).unwrap(), Some(State::new(5)));
    assert!(matches!(init(&store, 6), Err(StateError::IsAReplica(5))));
    assert_eq!(read(&store).unwrap(), Some(State::new(5)));
}

#[test]
fn a_replica_begins_another_log_at_the_time_that_it_has_reached() {
    let store = Store::in_memory().unwrap();
    assert!(matches!(reset(&store, 6), Err(StateError::NotAReplica)));
    init(&store, 5).unwrap();
    let held = reserved(&store).unwrap();
    let (key, value) = state().record();
    held.put(key, value).unwrap();
    held.put("writer/7", "something").unwrap();
    reset(&store, 6).unwrap();
    let expected = State {
        time: state().time,
        ..State::new(6)
    };
    assert_eq!(read(&store).unwrap(), Some(expected));
    assert_eq!(held.list().count().unwrap(), 1);
}

#[test]
fn what_a_later_version_wrote_is_told() {
    let store = Store::in_memory().unwrap();
    init(&store, 5).unwrap();
    reserved(&store).unwrap().put(STATE_KEY, "later").unwrap();
    let error = read(&store).unwrap_err();
    assert!(error.to_string().contains("newer embercask"), "{error}");
}

#[test]
fn only_a_log_that_goes_on_from_here_fits() {
    let bounds = |first, last| Bounds {
        first,
        last,
        entries: 0,
    };
    let check = |first, last| state().check_bounds(&bounds(first, last));
    assert_eq!(check(1, 12), Ok(()));
    assert_eq!(check(13, 20), Ok(()));
    // All that it kept has become too old.
    assert_eq!(check(13, 12), Ok(()));
    assert_eq!(check(14, 20), Err(Misfit::Behind { first: 14, next: 13 }));
    assert_eq!(check(1, 11), Err(Misfit::Ahead { last: 11, position: 12 }));
    assert_eq!(State::new(1).check_bounds(&bounds(1, 0)), Ok(()));
}
