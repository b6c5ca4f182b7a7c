//! Tests of the growth.

use super::*;
use crate::durability::Durability;
use crate::machine::Machine;
use crate::outcome::{Measure, Outcome};
use crate::results::Run;
use std::time::Duration;

fn results(keys: u64, microseconds: &[(&str, u64)]) -> Results {
    let engine = |name: &str| EngineNote {
        name: name.into(),
        version: "1".into(),
        settings: String::new(),
        settings_sync: String::new(),
        is_yardstick: false,
    };
    let run = |(name, microseconds): &(&str, u64)| Run {
        engine: (*name).into(),
        workload: "get-miss".into(),
        round: 0,
        outcome: Outcome::Measured(vec![Measure::rate("gets", 1, Duration::from_micros(*microseconds))]),
    };
    Results {
        machine: Machine {
            cores: 1,
            processor: String::new(),
            memory_bytes: 0,
            kernel: String::new(),
            file_system: String::new(),
        },
        date: String::new(),
        command: String::new(),
        keys,
        value_bytes: 100,
        rounds: 1,
        durability: Durability::Os,
        engines: microseconds.iter().map(|(name, _)| engine(name)).collect(),
        runs: microseconds.iter().map(run).collect(),
    }
}

fn refusal(one: Results, other: Results) -> String {
    match in_order(vec![("a".into(), one), ("b".into(), other)]) {
        Ok(_) => "taken".into(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn files_that_cannot_be_compared_are_refused() {
    assert!(in_order(vec![("a".into(), results(1, &[]))]).is_err());
    assert_eq!(refusal(results(1, &[]), results(2, &[])), "taken");
    assert_eq!(
        refusal(results(1000, &[]), results(1000, &[])),
        "a and b both have 1,000 keys"
    );
    let mut longer = results(2, &[]);
    longer.value_bytes = 200;
    assert_eq!(
        refusal(results(1, &[]), longer),
        "a and b differ in the size of values: 100 and 200 bytes"
    );
    let mut synced = results(2, &[]);
    synced.durability = Durability::Sync;
    assert_eq!(
        refusal(results(1, &[]), synced),
        "a and b differ in the class of durability: os and sync"
    );
}

#[test]
fn a_line_has_the_costs_by_ascending_keys_and_gaps_where_an_engine_is_not() {
    let files = vec![
        ("b".into(), results(200, &[("a", 3), ("b", 5)])),
        ("a".into(), results(100, &[("a", 2)])),
    ];
    let files = in_order(files).unwrap();
    let growth = of_workload(&files, &engines(&files), workloads::find("get-miss").unwrap()).unwrap();
    assert_eq!((growth.cost.as_str(), growth.is_time), ("ns a get", true));
    let rounded = |line: &Line| -> Vec<(u64, u64)> {
        line.points
            .iter()
            .map(|(keys, cost)| (*keys, cost.round() as u64))
            .collect()
    };
    assert_eq!(rounded(&growth.lines[0]), [(100, 2_000), (200, 3_000)]);
    assert_eq!(rounded(&growth.lines[1]), [(200, 5_000)]);
    assert!(of_workload(&files, &engines(&files), workloads::find("walk").unwrap()).is_none());
}
