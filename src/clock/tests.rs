use super::*;

fn start(wall_ms: u64) -> (ManualClock, StoreTime) {
    let clock = ManualClock::new(wall_ms);
    let time = StoreTime::new(Arc::new(clock.clone()));
    (clock, time)
}

/// The time by which the record with this sequence is judged.
fn judged(time: &StoreTime, sequence: u64) -> u64 {
    let now = time.now();
    let (mut low, mut high) = (0, u64::MAX);
    while low + 1 < high {
        let middle = low + (high - low) / 2;
        if now.is_expired(Some(middle), sequence) {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

#[test]
fn at_its_expiry_a_record_is_gone() {
    let now = start(1000).1.now();
    assert!(!now.is_expired(Some(1001), 1));
    assert!(now.is_expired(Some(1000), 1));
    assert!(!now.is_expired(None, 1));
}

#[test]
fn what_is_written_before_a_step_back_is_judged_by_the_highest_time_and_what_is_written_after_it_by_the_wall_clock() {
    let (clock, time) = start(5000);
    clock.set_wall(9000);
    assert_eq!(judged(&time, 1), 9000);
    clock.set_wall(1000);
    assert_eq!(time.now().wall_ms(), 1000);
    let earlier = time.now();
    time.appending(7);
    assert_eq!((judged(&time, 6), judged(&time, 7)), (9000, 1000));
    // A time taken before the append, and used after it, agrees.
    assert!(earlier.is_expired(Some(9000), 6) && !earlier.is_expired(Some(1001), 7));
    clock.set_wall(2000);
    assert_eq!((judged(&time, 6), judged(&time, 7)), (9000, 2000));
    clock.set_wall(9500);
    assert_eq!((judged(&time, 6), judged(&time, 7)), (9500, 9500));
}

#[test]
fn a_time_that_nobody_saw_is_no_step() {
    let (clock, time) = start(5000);
    clock.set_wall(9000);
    clock.set_wall(5000);
    time.appending(7);
    assert_eq!(judged(&time, 6), 5000);
}

#[test]
fn each_record_is_judged_by_the_highest_time_since_it_was_written() {
    let (clock, time) = start(0);
    let mut rng = 1u64;
    let mut random = |below: u64| {
        rng = rng.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (rng >> 33) % below
    };
    // The highest time since each record was written, by its sequence.
    let mut highest: Vec<u64> = Vec::new();
    for _ in 0..20_000 {
        match random(4) {
            0 => {
                time.now();
                time.appending(highest.len() as u64);
                highest.push(0);
            }
            1 => clock.advance(random(40)),
            // Few effective steps, so that none has to be merged.
            _ if random(8) == 0 => clock.set_wall(clock.wall_ms() + random(500)),
            _ if random(8) == 0 => clock.set_wall(clock.wall_ms().saturating_sub(random(900))),
            _ => {}
        }
        let now = time.now();
        for highest in &mut highest {
            *highest = now.wall_ms().max(*highest);
        }
        let from = highest.len().saturating_sub(40);
        for (sequence, highest) in highest.iter().enumerate().skip(from) {
            let sequence = sequence as u64;
            assert!(now.is_expired(Some(*highest), sequence) && !now.is_expired(Some(highest + 1), sequence));
        }
    }
    assert!(time.steps.load().len() < STEPS_MAX);
    assert!(highest.len() > 4_000, "{} records", highest.len());
}

#[test]
fn steps_are_forgotten_when_the_clock_has_caught_up_and_many_take_no_more_memory_than_some() {
    let (clock, time) = start(1_000_000);
    let mut highest = Vec::new();
    for sequence in 0..1000 {
        time.appending(sequence);
        highest.push(clock.wall_ms());
        clock.set_wall(clock.wall_ms() - 100 - sequence % 7);
        time.now();
    }
    time.appending(1000);
    assert_eq!(time.steps.load().len(), STEPS_MAX);
    // Merged to the safe side: no record that was seen expired comes back.
    assert!((0..1000).all(|sequence| judged(&time, sequence) >= highest[sequence as usize]));
    assert_eq!(judged(&time, 1000), clock.wall_ms());
    clock.set_wall(1_000_000);
    time.now();
    assert!(time.steps.load().is_empty() && !time.seen().has_steps());
}

#[test]
fn threads_that_read_the_clock_while_it_is_set_agree_on_what_is_expired() {
    let (clock, time) = start(1_000_000);
    let time = Arc::new(time);
    let (ended, looks) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                // What this thread has once seen expired stays expired.
                let mut gone = 0;
                while !ended.load(Ordering::Relaxed) {
                    let now = time.now();
                    assert!(now.is_expired(Some(gone), 0));
                    gone = gone.max(now.wall_ms());
                    looks.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // This often, and until the others have read the clock.
        for n in 0u64.. {
            if n >= 20_000 && (looks.load(Ordering::Relaxed) >= 20_000 || n > 20_000_000) {
                break;
            }
            clock.set_wall(1_000_000 + n * 7919 % 5000);
            // A put: it notices the step, and then gets a sequence.
            let now = time.now();
            time.appending(n + 1);
            let expiry = now.wall_ms() + 1;
            assert!(!time.now().is_expired(Some(expiry), n + 1));
        }
        ended.store(true, Ordering::Relaxed);
    });
    assert!(looks.into_inner() >= 20_000);
}

#[test]
fn two_clocks_that_tick_a_millisecond_apart_are_no_jump() {
    let (clock, time) = start(1_000_000);
    clock.advance(5000);
    clock.set_wall(1_005_001);
    assert_eq!(time.drop_horizon(0), Some(1_005_001));
}

#[test]
fn after_a_forward_jump_nothing_is_dropped_from_disk_for_a_while() {
    let (clock, time) = start(1_000_000);
    assert_eq!(time.drop_horizon(10_000), Some(990_000));
    clock.advance(60_000);
    assert_eq!(time.drop_horizon(10_000), Some(1_050_000));
    clock.set_wall(90_000_000);
    assert_eq!((time.drop_horizon(10_000), time.settled_ms(10_000)), (None, None));
    clock.advance(PAUSE_AFTER_JUMP_MS - 1);
    assert_eq!(time.drop_horizon(10_000), None);
    clock.advance(1);
    assert!(time.drop_horizon(10_000).is_some() && time.settled_ms(10_000).is_some());
}
