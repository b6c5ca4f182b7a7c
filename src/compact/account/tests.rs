//! What the account says of segments, at each boundary.

use super::*;

/// A segment with dead puts, which hides what came up to this sequence.
fn pin(hides_up_to: u64, dead_bytes: u64, live_bytes: u64) -> Facts {
    Facts {
        bytes: dead_bytes + live_bytes,
        live_bytes,
        dead_bytes,
        is_wasteful: true,
        max_sequence: 1000,
        hides_up_to: Some(hides_up_to),
        is_sound: true,
        ..Facts::default()
    }
}

/// A segment with nothing but tombstones.
fn tombstones(tombstone_bytes: u64, max_sequence: u64) -> Facts {
    Facts {
        bytes: tombstone_bytes,
        tombstone_bytes,
        is_wasteful: true,
        max_sequence,
        is_sound: true,
        ..Facts::default()
    }
}

/// A segment whose dead puts have expired too recently.
fn in_grace(hides_up_to: u64, grace_bytes: u64) -> Facts {
    Facts {
        bytes: grace_bytes,
        grace_bytes,
        dead_bytes: 0,
        ..pin(hides_up_to, 0, 0)
    }
}

fn damaged(facts: Facts) -> Facts {
    Facts {
        is_sound: false,
        ..facts
    }
}

fn held(segments: &[Facts]) -> (u64, u64) {
    let held = Account::of(segments.to_vec()).held();
    (held.grace_bytes, held.damage_bytes)
}

#[test]
fn a_tombstone_is_held_by_what_it_may_hide_and_cannot_go_and_by_nothing_else() {
    let (grace, broken) = (in_grace(300, 11), damaged(pin(500, 40, 40)));
    let with = |max_sequence| held(&[pin(100, 5, 5), grace, tombstones(7, max_sequence), broken]);
    // What compaction can drop holds nothing: it is waste.
    assert_eq!(held(&[pin(100, 5, 5), tombstones(7, 200)]), (0, 0));
    assert_eq!(with(299), (11, 0));
    assert_eq!(with(300), (11, 0));
    assert_eq!(with(301), (11 + 7, 0));
    assert_eq!(with(500), (11 + 7, 0));
    assert_eq!(with(501), (11, 7));
    // The damaged segment's own tombstones count nowhere; it cannot be compacted.
    assert_eq!(held(&[damaged(tombstones(9, 900)), broken]), (0, 0));
}

#[test]
fn what_is_above_the_ceiling_and_may_go_is_owed() {
    let excess = |segments: &[Facts]| Account::of(segments.to_vec()).excess(1.5, 100);
    // 1,000 live, so 1,500 and a segment of 100.
    let full = |dead| [pin(1, dead, 1000)];
    assert_eq!(excess(&full(600)), 0);
    assert_eq!(excess(&full(601)), 1);
    assert_eq!(excess(&[full(601)[0], in_grace(900, 50)]), 1);
    assert_eq!(excess(&[full(601)[0], damaged(pin(1, 5000, 5000))]), 1);
    let hidden = [full(601)[0], tombstones(30, 900), damaged(pin(5, 9, 9))];
    assert_eq!(excess(&hidden), 1, "held by damage");
    assert_eq!(excess(&[full(601)[0], tombstones(30, 900)]), 31);
    // A hint of 3 bytes for each of 1,000 puts: half of 0.5 x 4,000 is left for waste.
    let mut small = pin(1, 1100, 1000);
    (small.live_puts, small.bytes) = (1000, 1000 + 3000 + 1100);
    assert_eq!(excess(&[small]), 0);
    small.bytes += 1;
    assert_eq!(excess(&[small]), 1);
}

#[test]
fn tombstones_go_with_their_own_segment_if_nothing_elsewhere_needs_them() {
    let gain = |segments: &[Facts]| Account::of(segments.to_vec()).gain(0, &segments[0]);
    let own = Facts {
        tombstone_bytes: 7,
        max_sequence: 400,
        ..pin(100, 20, 0)
    };
    assert_eq!(gain(&[own]), 27);
    assert_eq!(gain(&[own, pin(400, 1, 1)]), 27);
    assert_eq!(gain(&[own, pin(399, 1, 1)]), 20);
    assert_eq!(gain(&[own, damaged(pin(399, 1, 1))]), 20);
    assert_eq!(gain(&[own, in_grace(399, 1)]), 20);
    assert_eq!(gain(&[pin(100, 20, 0), pin(1, 1, 1)]), 20);
}

/// Each segment of the way, with bytes copied and gained up to it.
fn way(segments: &[Facts]) -> Vec<(usize, u64, u64)> {
    let way = Account::of(segments.to_vec()).unpinning();
    way.iter()
        .map(|step| (step.index, step.copied_bytes, step.gain))
        .collect()
}

#[test]
fn the_way_to_free_tombstones_leads_from_the_oldest_pin_as_far_as_it_pays() {
    assert_eq!(way(&[]), []);
    assert_eq!(way(&[pin(100, 3, 50)]), [], "there are no tombstones");
    // One pin.
    assert_eq!(way(&[tombstones(70, 200), pin(100, 3, 50)]), [(1, 50, 73)]);
    assert_eq!(
        way(&[tombstones(70, 100), pin(100, 3, 50)]),
        [],
        "it hides nothing of them"
    );
    // The second frees more for what it costs, and the third less.
    let segments = [
        tombstones(10, 150),
        tombstones(100, 250),
        tombstones(5, 350),
        pin(300, 1, 900),
        pin(200, 1, 20),
        pin(100, 1, 30),
    ];
    assert_eq!(way(&segments), [(5, 30, 11), (4, 50, 112)]);
    // As good as the shorter way is not better.
    let segments = [
        tombstones(49, 150),
        tombstones(49, 250),
        pin(200, 1, 25),
        pin(100, 1, 25),
    ];
    assert_eq!(way(&segments), [(3, 25, 50)]);
    // What is in grace is copied too.
    let mut copied = pin(100, 3, 50);
    copied.grace_bytes = 8;
    assert_eq!(way(&[tombstones(70, 200), copied]), [(1, 58, 73)]);
}

#[test]
fn a_pin_that_compaction_cannot_end_is_not_on_the_way_and_ends_it() {
    for stays in [in_grace(150, 5), damaged(pin(150, 5, 5))] {
        // The tombstones before it are freed, those behind it are not.
        let segments = [tombstones(10, 150), tombstones(1000, 151), stays, pin(100, 1, 20)];
        assert_eq!(way(&segments), [(3, 20, 11)]);
        // It is older than the pin: nothing can be freed.
        assert_eq!(way(&[tombstones(10, 500), stays, pin(200, 1, 20)]), []);
    }
    // Neither does what has no dead puts, nor a damaged segment's tombstones, count.
    let nothing_dead = Facts {
        hides_up_to: None,
        ..pin(0, 0, 9)
    };
    assert_eq!(way(&[tombstones(10, 500), nothing_dead]), []);
    assert_eq!(way(&[damaged(tombstones(10, 500)), pin(200, 1, 20)]), []);
    assert_eq!(
        way(&[damaged(tombstones(10, 500)), tombstones(1, 600), pin(200, 1, 20)]),
        [(2, 20, 2)]
    );
}
