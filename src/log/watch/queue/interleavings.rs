//! Interleavings of a writer and a watcher, as many as shuttle reaches.

use std::future::poll_fn;
use std::sync::Arc;

use shuttle::{future, thread};

use super::*;

const EVENTS: u64 = 3;

fn explore(watch: fn(&Queue) -> Vec<u64>) {
    let scenario = move || {
        let queue = Arc::new(Queue::new(b"", false, EVENTS as usize));
        let watched = queue.clone();
        let watcher = thread::spawn(move || watch(&watched));
        for sequence in 1..=EVENTS {
            let make = |_| Event::Delete {
                key: Vec::new(),
                sequence,
            };
            if queue.add(sequence, None, make) && sequence != 2 {
                queue.wake();
            }
            // The second and the third are told together.
            thread::yield_now();
        }
        queue.wake();
        queue.end();
        assert_eq!(watcher.join().unwrap(), [1, 2, 3]);
        assert!(queue.is_over());
    };
    shuttle::check_random(scenario, 400);
    shuttle::check_pct(scenario, 400, 3);
}

#[test]
fn a_thread_that_waits_is_told_of_each_event_and_of_the_end() {
    explore(|queue| {
        std::iter::from_fn(|| queue.take())
            .map(|event| event.sequence())
            .collect()
    });
}

#[test]
fn a_task_that_waits_is_told_of_each_event_and_of_the_end() {
    explore(|queue| {
        future::block_on(async {
            let mut sequences = Vec::new();
            while let Some(event) = poll_fn(|context| queue.poll_take(context)).await {
                sequences.push(event.sequence());
            }
            sequences
        })
    });
}
