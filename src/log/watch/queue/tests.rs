use std::sync::Arc;
use std::task::Wake;

use super::*;
use crate::segment::Value;

fn add(queue: &Queue, sequence: u64) -> bool {
    let make = |_| Event::Delete {
        key: Vec::new(),
        sequence,
    };
    queue.add(sequence, None, make)
}

fn put(queue: &Queue, sequence: u64, value_in: (u64, u64)) {
    let make = |with_value: bool| Event::Put {
        key: Vec::new(),
        sequence,
        expiry_ms: None,
        value: with_value.then(|| Value::of_parts(None, b"value", None)),
    };
    queue.add(sequence, Some(value_in), make);
}

/// The sequences of what waits; of what was missed, the negative.
fn taken(queue: &Queue) -> Vec<i64> {
    let events = std::iter::from_fn(|| queue.try_take());
    let number = |event| match event {
        Event::Missed { up_to } => -(up_to as i64),
        event => event.sequence() as i64,
    };
    events.map(number).collect()
}

#[test]
fn what_does_not_fit_is_told_once_as_missed_and_the_drop_always_fits() {
    let queue = Queue::new(b"", false, 2);
    for sequence in 1..=5 {
        add(&queue, sequence);
    }
    // Of what has expired the sequence is lower.
    add(&queue, 3);
    assert_eq!(queue.try_take().unwrap().sequence(), 1);
    // There is room, but what came before is missing.
    add(&queue, 6);
    assert_eq!(taken(&queue), [2, -6]);
    for sequence in 7..=9 {
        add(&queue, sequence);
    }
    queue.end_by_drop(10);
    assert!(!queue.is_over());
    assert_eq!(taken(&queue), [7, 8, -9, 10]);
    assert!(queue.is_over());
    assert!(queue.take().is_none());
}

#[test]
fn values_that_wait_are_of_so_many_bytes_of_segments() {
    const PART: u64 = HELD_BYTES_MAX / 2;
    for (values, expected) in [(true, vec![1, 2, 3, 4, 5, -8]), (false, (1..=8).collect())] {
        let queue = Queue::new(b"", values, 100);
        // The segment grows meanwhile.
        put(&queue, 1, (1, 10));
        put(&queue, 2, (1, PART));
        put(&queue, 3, (2, PART - 1));
        add(&queue, 4);
        put(&queue, 5, (2, PART));
        put(&queue, 6, (3, 1));
        put(&queue, 7, (2, PART));
        add(&queue, 8);
        assert_eq!(taken(&queue), expected);
        // Their room is free again, and one segment may have any size.
        assert!(queue.lock().held.is_empty());
        put(&queue, 11, (4, 2 * HELD_BYTES_MAX));
        put(&queue, 12, (4, 2 * HELD_BYTES_MAX));
        assert_eq!(taken(&queue), [11, 12]);
    }
}

struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("on purpose");
    }
}

#[test]
fn a_waker_that_panics_does_not_disturb_the_writer() {
    let queue = Queue::new(b"", false, 2);
    let waker = Waker::from(Arc::new(Panics));
    let mut context = Context::from_waker(&waker);
    assert!(queue.poll_take(&mut context).is_pending());
    assert!(add(&queue, 1));
    // Once is enough.
    assert!(!add(&queue, 2));
    queue.wake();
    assert_eq!(taken(&queue), [1, 2]);
    queue.end();
    assert!(matches!(queue.poll_take(&mut context), Poll::Ready(None)));
}
