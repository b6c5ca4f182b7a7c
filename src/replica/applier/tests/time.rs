use super::*;

fn for_ms(key: &str, ms: u64) -> Operation {
    put_with(key, "1", Lifetime::After(ms), Conditions::default())
}

#[test]
fn a_store_shows_the_time_of_its_log() {
    let (mut log, mut node) = (Log::new(), Node::new());
    log.operate([for_ms("a", 1000), for_ms("b", 5000)]);
    node.apply(&log.deliveries);
    assert_eq!(node.applier().store().now_ms(), log.stamp_ms);
    assert_eq!(node.get("a"), Some(("1".to_owned(), Some(log.stamp_ms + 1000))));
    log.stamp_ms += 1000;
    log.operate([put("c", "1")]);
    node.apply(&log.deliveries);
    assert_eq!(node.get("a"), None);
    assert!(node.get("b").is_some());
    // The clock of the log's leader steps back: what has expired stays so, also after a restart.
    log.stamp_ms -= 3000;
    log.operate([put_with("a", "2", Lifetime::Forever, if_absent()), for_ms("d", 10)]);
    node.apply(&log.deliveries);
    node.restart();
    assert_eq!(node.get("a"), Some(("2".to_owned(), None)));
    assert!(node.get("d").is_some());
}

#[test]
fn conditions_are_decided_at_the_time_of_their_entry() {
    let (mut log, mut node) = (Log::new(), Node::new());
    log.operate([for_ms("a", 15)]);
    // Ten milliseconds later, and ten more.
    log.operate([put_with("a", "2", Lifetime::After(5), if_absent())]);
    log.operate([put_with("a", "3", Lifetime::Forever, if_absent())]);
    let verdicts = node.apply(&log.deliveries).split_off(3);
    let not_met = Outcome::NotMet { is_there: true };
    assert_eq!(verdicts, [Verdict::Done(vec![not_met]), Verdict::Done(vec![DONE])]);
}

#[test]
fn catching_up_does_not_stop_the_removal_of_what_has_expired() {
    let (mut log, mut node) = (Log::new(), Node::new());
    log.operate([for_ms("a", 1000), for_ms("b", 100_000_000)]);
    node.apply(&log.deliveries);
    let keys = |node: &mut Node| {
        let store = node.applier().store().clone();
        store.maintain().unwrap();
        let stats = store.namespace_stats().unwrap();
        stats.into_iter().find(|stats| stats.id == NAMESPACE).unwrap().keys
    };
    assert_eq!(keys(&mut node), 2);
    log.stamp_ms += 50_000_000;
    log.operate([put("c", "1")]);
    node.apply(&log.deliveries);
    assert_eq!(keys(&mut node), 2);
}

#[test]
fn entries_of_a_group_have_their_own_time() {
    let (mut log, mut node) = (Log::new(), Node::new());
    log.operate([for_ms("a", 5)]);
    log.operate([for_ms("b", 5)]);
    log.stamp_ms += 1000;
    log.operate([for_ms("c", 5)]);
    let verdicts = node.apply(&log.deliveries).split_off(2);
    let expected = [START_MS + 35, START_MS + 45, START_MS + 1055].map(|expiry_ms| {
        Verdict::Done(vec![Outcome::Done {
            expiry_ms: Some(expiry_ms),
        }])
    });
    assert_eq!(verdicts, expected);
    assert_eq!(node.get("a"), None);
    assert!(node.get("c").is_some());
}
