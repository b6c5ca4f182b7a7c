use bytes::Bytes;

use super::*;
use crate::entry::{BODY_BYTES_MAX, Conditions, Lifetime};

const ID: u128 = 7;

fn writer() -> Writer<u32> {
    Writer::new(1, ID, WriterSettings::default())
}

fn put(value: usize) -> Operation {
    Operation::Put {
        namespace: 1,
        key: Bytes::from_static(b"key"),
        value: vec![b'v'; value].into(),
        metadata: None,
        lifetime: Lifetime::Forever,
        conditions: Conditions::default(),
    }
}

fn applied(counter: u64, verdict: Verdict) -> Applied {
    Applied {
        position: 100 + counter,
        log_ms: 1,
        writer: ID,
        counter,
        verdict,
    }
}

fn done(outcomes: usize) -> Verdict {
    Verdict::Done(vec![Outcome::Done { expiry_ms: None }; outcomes])
}

fn body(publication: &Publication) -> Body {
    Entry::decode(&publication.entry).unwrap().body
}

fn operations(publication: &Publication) -> usize {
    match body(publication) {
        Body::Operations(all) => all.len(),
        other => panic!("{other:?}"),
    }
}

fn counters(publications: &[Publication]) -> Vec<u64> {
    publications.iter().map(|publication| publication.counter).collect()
}

fn lost() -> Result<u64, LogError> {
    Err(LogError::Unavailable("lost".to_owned()))
}

#[test]
fn the_first_goes_at_once_and_the_others_together_when_it_is_acknowledged() {
    let mut writer = writer();
    writer.submit(vec![put(1)], 1, 0).unwrap();
    let first = writer.poll(0, Some(50));
    assert_eq!(counters(&first), [1]);
    assert_eq!(first[0].id, format!("{ID:032x}-1"));
    assert_eq!(Entry::decode(&first[0].entry).unwrap().header.sent_ms, 50);
    writer.submit(vec![put(1)], 2, 1).unwrap();
    writer.submit(vec![put(1), put(2)], 3, 1).unwrap();
    assert!(writer.poll(1, Some(50)).is_empty());
    writer.published(1, Ok(101), 2);
    let second = writer.poll(2, Some(50));
    assert_eq!(counters(&second), [2]);
    assert_eq!(operations(&second[0]), 3);

    writer.applied(&applied(2, done(3)));
    let answers = writer.answers();
    let outcomes = answers
        .iter()
        .map(|(token, result)| (*token, result.as_ref().unwrap().outcomes.len()));
    assert_eq!(outcomes.collect::<Vec<_>>(), [(2, 1), (3, 2)]);
    assert_eq!(writer.held(), 1);
    writer.applied(&applied(1, done(1)));
    assert_eq!(writer.answers().len(), 1);
    assert_eq!(writer.held(), 0);
}

#[test]
fn what_waits_goes_after_a_while_or_when_an_entry_is_full() {
    let mut writer = writer();
    writer.submit(vec![put(1)], 1, 0).unwrap();
    assert_eq!(writer.poll(0, Some(1)).len(), 1);
    writer.submit(vec![put(1)], 2, 1).unwrap();
    assert_eq!(writer.next_wake_ms(true), Some(1 + LINGER_MS));
    assert!(writer.poll(LINGER_MS, Some(1)).is_empty());
    assert_eq!(writer.poll(1 + LINGER_MS, Some(1)).len(), 1);
    for token in 3..7 {
        writer.submit(vec![put(200_000)], token, 10).unwrap();
    }
    let full = writer.poll(10, Some(1));
    assert_eq!(full.iter().map(operations).collect::<Vec<_>>(), [2]);
    assert!(full[0].entry.len() <= 512 << 10);
}

#[test]
fn an_entry_is_sent_again_unchanged_until_it_is_acknowledged() {
    let mut writer = writer();
    writer.submit(vec![put(1)], 1, 0).unwrap();
    let first = writer.poll(0, Some(1)).remove(0);
    writer.published(1, lost(), 10);
    assert_eq!(writer.next_wake_ms(true), Some(60));
    assert!(writer.poll(59, Some(9)).is_empty());
    let second = writer.poll(60, Some(9)).remove(0);
    // No word of the second attempt.
    assert!(writer.poll(2059, Some(9)).is_empty());
    let third = writer.poll(2060, Some(9)).remove(0);
    for again in [second, third] {
        assert_eq!((&again.id, &again.entry), (&first.id, &first.entry));
    }
    writer.published(1, Ok(5), 2061);
    // An earlier attempt may still say that it failed.
    writer.published(1, lost(), 2062);
    assert!(writer.poll(9000, Some(9)).is_empty());
    assert_eq!(writer.held(), 1);
}

#[test]
fn an_entry_that_was_applied_needs_no_acknowledgement() {
    let mut writer = writer();
    writer.submit(vec![put(1)], 1, 0).unwrap();
    writer.poll(0, Some(1));
    let other = Applied {
        writer: ID + 1,
        ..applied(1, done(1))
    };
    writer.applied(&other);
    writer.applied(&applied(1, Verdict::Repeated));
    assert!(writer.answers().is_empty());
    writer.applied(&applied(1, done(1)));
    assert_eq!(writer.answers()[0].1.as_ref().unwrap().position, 101);
    assert_eq!(writer.in_flight(), 0);
    writer.published(1, lost(), 1);
    assert!(writer.poll(5000, Some(1)).is_empty());
}

#[test]
fn few_entries_are_in_flight_and_their_counters_are_close() {
    let mut writer = writer();
    let mut published = Vec::new();
    let mut now_ms = 0;
    // The first one stays without an answer.
    for token in 0..200 {
        now_ms += LINGER_MS;
        writer.submit(vec![put(1)], token, now_ms - LINGER_MS).unwrap();
        published.extend(counters(&writer.poll(now_ms, Some(1))));
        if token >= 30 {
            for counter in published.iter().skip(1) {
                writer.published(*counter, Ok(1), now_ms);
            }
        } else {
            assert!(writer.in_flight() <= IN_FLIGHT_MAX);
        }
        assert!(published.last().unwrap() - published[0] < 64);
    }
    assert_eq!(*published.last().unwrap(), SPAN_MAX);
    assert!(published.len() > IN_FLIGHT_MAX);
    writer.published(1, Ok(1), now_ms);
    assert_eq!(writer.poll(now_ms, Some(1)).len(), 1);
}

#[test]
fn a_long_body_is_committed_when_all_its_parts_are_acknowledged() {
    let mut writer = writer();
    writer.submit(vec![put(5_000_000)], 1, 0).unwrap();
    let mut waiting = writer.poll(0, Some(1));
    let (mut parts, mut now_ms) = (0, 0);
    while let Some(publication) = waiting.pop() {
        let Body::Part { bytes, .. } = body(&publication) else {
            assert!(matches!(body(&publication), Body::Commit { parts: all, .. } if all == parts));
            assert!(waiting.is_empty() && parts == 20);
            writer.applied(&applied(publication.counter, done(1)));
            assert!(writer.answers()[0].1.is_ok());
            assert_eq!((writer.held(), writer.in_flight()), (0, 0));
            return;
        };
        assert!(bytes.len() <= PART_BYTES);
        now_ms += 1;
        // Each part gets lost once.
        if publication.counter % 2 == 0 && now_ms < 100 {
            writer.published(publication.counter, lost(), now_ms);
            now_ms += 100;
        } else {
            parts += 1;
            writer.published(publication.counter, Ok(1), now_ms);
        }
        waiting.extend(writer.poll(now_ms, Some(1)));
    }
    panic!("no commit");
}

#[test]
fn nodes_are_told_to_remove_the_parts_of_a_write_that_is_given_up() {
    let mut writer = writer();
    // Of the second nothing is sent.
    writer.submit(vec![put(5_000_000)], 1, 0).unwrap();
    writer.submit(vec![put(5_000_000)], 2, 0).unwrap();
    let parts = writer.poll(0, Some(1));
    assert_eq!(parts.len(), IN_FLIGHT_MAX / 2);
    let told = writer.poll(10_000, Some(1));
    assert_eq!(told.len(), 1);
    let told = &told[0];
    let Body::Commit { upload, digest, .. } = body(told) else {
        panic!("it commits nothing")
    };
    assert!(matches!(body(&parts[0]), Body::Part { upload: of, .. } if of == upload));
    assert_eq!(digest, [0; 16]);
    let timed_out = |token| (token, Err(WriteError::TimedOut));
    assert_eq!(writer.answers(), [timed_out(1), timed_out(2)]);
    writer.applied(&applied(told.counter, Verdict::Incomplete));
    assert!(writer.poll(10_005, Some(1)).is_empty());
    assert_eq!((writer.held(), writer.in_flight()), (0, 0));
}

#[test]
fn small_writes_pass_a_long_one() {
    let mut writer = writer();
    writer.submit(vec![put(20_000_000)], 1, 0).unwrap();
    assert_eq!(writer.poll(0, Some(1)).len(), IN_FLIGHT_MAX / 2);
    writer.submit(vec![put(1)], 2, 0).unwrap();
    let small = writer.poll(0, Some(1));
    assert_eq!(small.iter().map(operations).collect::<Vec<_>>(), [1]);
}

#[test]
fn what_takes_too_long_is_answered_once_and_not_sent_again() {
    let mut writer = writer();
    writer.submit(vec![put(1)], 1, 0).unwrap();
    writer.poll(0, Some(1));
    writer.submit(vec![put(1)], 2, 1).unwrap();
    writer.submit(vec![put(1_000_000)], 3, 1).unwrap();
    assert!(!writer.poll(9_999, Some(1)).is_empty());
    writer.published(1, lost(), 9_999);
    let told = writer.poll(10_001, Some(1));
    assert!(told.len() == 1 && matches!(body(&told[0]), Body::Commit { .. }));
    writer.published(told[0].counter, Ok(1), 10_001);
    let mut answers = writer.answers();
    answers.sort_by_key(|(token, _)| *token);
    let expected: Vec<_> = (1..4).map(|token| (token, Err(WriteError::TimedOut))).collect();
    assert_eq!(answers, expected);
    assert_eq!((writer.held(), writer.in_flight()), (0, 0));
    assert_eq!(writer.next_wake_ms(true), None);
    writer.applied(&applied(1, done(1)));
    assert!(writer.answers().is_empty());
}

#[test]
fn one_that_timed_out_does_not_shift_the_answers_of_its_entry() {
    let mut writer = writer();
    writer.submit(vec![put(1)], 0, 0).unwrap();
    writer.poll(0, Some(1));
    writer.submit(vec![put(1)], 1, 0).unwrap();
    writer.submit(vec![put(1)], 2, 3).unwrap();
    assert_eq!(operations(&writer.poll(5, Some(1))[0]), 2);
    writer.poll(10_000, Some(1));
    assert_eq!(writer.answers().len(), 2);
    let outcomes = vec![Outcome::NoNamespace, Outcome::NameTaken];
    writer.applied(&applied(2, Verdict::Done(outcomes)));
    let answers = writer.answers();
    assert_eq!(answers[0].1.as_ref().unwrap().outcomes, [Outcome::NameTaken]);
    assert_eq!(writer.held(), 0);
}

#[test]
fn too_much_is_refused_at_once() {
    let settings = WriterSettings {
        operations_max: 3,
        bytes_max: 2 << 20,
        ..WriterSettings::default()
    };
    let mut writer = Writer::new(1, ID, settings);
    for token in 0..3 {
        writer.submit(vec![put(1)], token, 0).unwrap();
    }
    assert_eq!(writer.submit(vec![put(1)], 9, 0), Err((9, WriteError::QueueFull)));
    writer.poll(0, Some(1));
    assert_eq!(writer.submit(vec![put(1)], 9, 0), Err((9, WriteError::QueueFull)));
    writer.applied(&applied(1, done(3)));
    writer.submit(vec![put(1)], 4, 0).unwrap();
    assert!(matches!(
        writer.submit(vec![put(3 << 20)], 9, 0),
        Err((9, WriteError::TooLong(_)))
    ));
    assert_eq!(writer.submit(vec![put(2_000_000); 1], 9, 0), Ok(()));
    assert_eq!(writer.submit(vec![put(200_000)], 9, 0), Err((9, WriteError::QueueFull)));
    assert_eq!(writer.submit(vec![], 9, 0), Err((9, WriteError::Mixed)));
}

#[test]
fn a_change_of_namespaces_travels_alone() {
    let mut writer = writer();
    let drop = Operation::DropNamespace { id: 5 };
    assert_eq!(
        writer.submit(vec![put(1), drop.clone()], 9, 0),
        Err((9, WriteError::Mixed))
    );
    for (token, operation) in [put(1), put(1), drop, put(1)].into_iter().enumerate() {
        writer.submit(vec![operation], token as u32, 0).unwrap();
    }
    let sent = writer.poll(LINGER_MS, Some(1));
    assert_eq!(sent.iter().map(operations).collect::<Vec<_>>(), [2, 1, 1]);
    assert!(matches!(&body(&sent[1]), Body::Operations(all) if all[0] == Operation::DropNamespace { id: 5 }));
}

#[test]
fn nothing_is_sent_while_the_time_of_the_log_is_unknown() {
    let mut writer = writer();
    writer.submit(vec![put(1)], 1, 0).unwrap();
    assert!(writer.poll(0, None).is_empty());
    assert_eq!(writer.next_wake_ms(false), Some(10_000));
    assert!(writer.beat(3, [1; 16], (0, 0)).is_some());
    assert_eq!(writer.poll(5, Some(1)).len(), 1);
}

#[test]
fn a_beat_is_sent_once() {
    let mut writer = writer();
    let beat = writer.beat(3, [1; 16], (0, 9)).unwrap();
    assert!(matches!(body(&beat), Body::Beat { position: 3, .. }));
    assert_eq!(writer.in_flight(), 1);
    assert!(writer.poll(2000, Some(1)).is_empty());
    assert_eq!(writer.in_flight(), 0);
    let second = writer.beat(4, [1; 16], (0, 9)).unwrap();
    writer.published(second.counter, lost(), 1);
    assert_eq!(writer.in_flight(), 0);
}

#[test]
fn verdicts_and_refusals_are_told() {
    let mut writer = writer();
    let refused = LogError::Refused("full".to_owned());
    let cases = [
        (Verdict::Late, WriteError::TooLate),
        (Verdict::Incomplete, WriteError::Incomplete),
    ];
    for (counter, (verdict, error)) in (1..).zip(cases) {
        writer.submit(vec![put(1)], 1, 0).unwrap();
        writer.poll(0, Some(1));
        writer.applied(&applied(counter, verdict));
        assert_eq!(writer.answers(), [(1, Err(error))]);
    }
    for length in [1, BODY_BYTES_MAX] {
        writer.submit(vec![put(length)], 1, 0).unwrap();
        let counter = writer.poll(0, Some(1))[0].counter;
        writer.published(counter, Err(refused.clone()), 0);
        assert_eq!(writer.answers(), [(1, Err(WriteError::Refused(refused.clone())))]);
        assert_eq!((writer.held(), writer.in_flight()), (0, 0));
    }
    for (token, length) in [(1, 1), (2, 1_000_000), (3, 1)] {
        writer.submit(vec![put(length)], token, 0).unwrap();
        writer.poll(0, Some(1));
    }
    writer.stop();
    let answers = writer.answers();
    assert_eq!(answers.len(), 3);
    assert!(answers.iter().all(|(_, result)| *result == Err(WriteError::Stopped)));
    assert_eq!(writer.held(), 0);
}
