use std::time::Duration;

use super::progress::{Doing, Progress};
use crate::log::Bounds;
use crate::state::State;

fn bounds(last: u64) -> Bounds {
    Bounds {
        first: 1,
        last,
        entries: last,
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_falls_behind_is_stale_although_entries_come() {
    let at = |position| State {
        position,
        ..State::new(1)
    };
    let progress = Progress::new(&at(0), Duration::from_secs(10));
    progress.set_doing(Doing::Following);
    for second in 1..=12 {
        tokio::time::advance(Duration::from_secs(1)).await;
        progress.set_log(bounds(100 * second), None);
        progress.applied(&at(5 * second));
    }
    let status = progress.status();
    assert_eq!(status.age, Duration::from_secs(11));
    let why = status.not_ready.unwrap();
    assert!(why.contains("11 s behind") && why.contains("60 of 1200"), "{why}");

    // What the log held first is applied, and what it held next is not yet stale.
    progress.applied(&at(100));
    progress.set_log(bounds(1200), None);
    tokio::time::advance(Duration::from_secs(2)).await;
    progress.applied(&at(1000));
    let status = progress.status();
    assert_eq!((status.age, status.not_ready), (Duration::from_secs(2), None));
    progress.applied(&at(1200));
    assert_eq!(progress.status().age, Duration::ZERO);
}
