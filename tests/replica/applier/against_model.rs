//! Random logs, applied by replicas that group and restart differently, and by the model.

use proptest::prelude::*;
use proptest::test_runner::Config;

use super::draw::{CHUNK, log};
use super::model::Model;
use super::node::{Node, alike};

proptest! {
    #![proptest_config(Config { cases: 128, failure_persistence: None, ..Config::default() })]

    #[test]
    fn replicas_are_equal_however_they_group_and_restart(
        chunks in prop::collection::vec(any::<[u8; CHUNK]>(), 1..80),
        moves in prop::collection::vec(any::<u8>(), 1..80),
    ) {
        let log = log(&chunks);
        let (mut model, mut one_by_one) = (Model::default(), Node::new());
        for (delivery, entry) in log.deliveries.iter().zip(&log.entries) {
            let expected = model.apply(entry, delivery.stamp_ms);
            let applied = one_by_one.apply(std::slice::from_ref(delivery)).pop().unwrap();
            prop_assert_eq!(alike(applied.verdict), expected, "of {:?}", entry);
            prop_assert_eq!(applied.log_ms, model.log_ms());
            prop_assert_eq!(one_by_one.seen(), model.seen());
        }
        let expected = one_by_one.content();
        let mut grouped = Node::new();
        for how in moves.iter().cycle() {
            let position = grouped.position();
            if position == log.deliveries.len() {
                break;
            }
            if how % 5 == 0 {
                grouped.restart();
            }
            // Some are delivered again.
            let from = position.saturating_sub(usize::from(how % 3));
            let until = log.deliveries.len().min(position + 1 + usize::from(how / 8));
            grouped.apply(&log.deliveries[from..until]);
        }
        prop_assert_eq!(grouped.content(), expected);
        prop_assert_eq!(grouped.seen(), model.seen());
        prop_assert_eq!(grouped.held(), one_by_one.held());
        grouped.restart();
        prop_assert_eq!(grouped.content(), expected);
    }
}
