//! Listing keys.

use super::Workload;
use crate::context::Context;
use crate::data::{GROUP, Key, prefix};
use crate::engine::Engine;
use crate::random::{Random, scattered};
use crate::{engine::Need, outcome::Measure};
use anyhow::{Result, ensure};
use std::time::Instant;

const METADATA: &[u8] = br#"{"type":"text/html"}"#;
/// Minimum number of lists per run, since a small store has few groups.
const LISTS_MIN: u64 = 20;

pub const WORKLOADS: &[Workload] = &[
    Workload {
        name: "list-prefix",
        title: "List: the 1,000 keys of a prefix, without values",
        needs: &[Need::Reads, Need::Order],
        run: list_prefix,
    },
    Workload {
        name: "list-metadata",
        title: "List: the 1,000 keys of a prefix, with their metadata",
        needs: &[Need::Reads, Need::Order, Need::Metadata],
        run: list_metadata,
    },
    Workload {
        name: "walk",
        title: "Walk: every key, without values, in order if the engine has one",
        needs: &[Need::Reads],
        run: walk,
    },
];

/// Keys arrive in no order across the groups, as they would from users.
fn scattered_group_key(context: &Context, index: u64) -> (u64, Key) {
    let number = scattered(index, groups(context) * GROUP);
    (number, Key::grouped(number))
}

/// The number of whole groups, so that all lists have the same number of keys.
fn groups(context: &Context) -> u64 {
    (context.keys / GROUP).max(1)
}

fn list_prefix(context: &Context) -> Result<Vec<Measure>> {
    let engine = context.open()?;
    let indexes: Vec<u64> = (0..groups(context) * GROUP).collect();
    for chunk in indexes.chunks(1_000) {
        let numbered = chunk.iter().map(|index| scattered_group_key(context, *index));
        let entries: Vec<_> = numbered.map(|(number, key)| (key, context.value(number, 0))).collect();
        engine.put_batch(&entries)?;
    }
    engine.settle()?;
    timed_lists(context, engine, |engine, prefix| {
        let mut keys = 0;
        engine.list_prefix(prefix, &mut |key| {
            ensure!(key.starts_with(prefix), "a listed key has another prefix");
            keys += 1;
            Ok(())
        })?;
        Ok(keys)
    })
}

fn list_metadata(context: &Context) -> Result<Vec<Measure>> {
    let engine = context.open()?;
    for index in 0..groups(context) * GROUP {
        let (number, key) = scattered_group_key(context, index);
        engine.put_with_metadata(&key, &context.value(number, 0), METADATA)?;
    }
    engine.settle()?;
    timed_lists(context, engine, |engine, prefix| {
        let mut keys = 0;
        engine.list_metadata(prefix, &mut |key, metadata| {
            ensure!(key.starts_with(prefix), "a listed key has another prefix");
            ensure!(metadata == METADATA, "a listed key has other metadata");
            keys += 1;
            Ok(())
        })?;
        Ok(keys)
    })
}

fn timed_lists(
    context: &Context,
    engine: Box<dyn Engine>,
    list: impl Fn(&dyn Engine, &[u8]) -> Result<u64>,
) -> Result<Vec<Measure>> {
    let groups = groups(context);
    let lists = groups.max(LISTS_MIN);
    let mut random = Random::new(6);
    let start = Instant::now();
    for _ in 0..lists {
        let keys = list(&*engine, &prefix(random.below(groups)))?;
        ensure!(keys == GROUP, "{keys} keys of a prefix that has {GROUP}");
    }
    let measure = Measure::rate("keys listed", lists * GROUP, start.elapsed());
    engine.close()?;
    Ok(vec![measure])
}

fn walk(context: &Context) -> Result<Vec<Measure>> {
    let engine = context.open_loaded(Key::random)?;
    let (mut keys, mut lengths) = (0, 0);
    let start = Instant::now();
    engine.walk(&mut |key| {
        keys += 1;
        lengths += key.len();
        Ok(())
    })?;
    let elapsed = start.elapsed();
    let expected: usize = (0..context.keys).map(|number| Key::random(number).len()).sum();
    ensure!(
        (keys, lengths) == (context.keys, expected),
        "{keys} keys of {lengths} bytes were walked"
    );
    engine.close()?;
    Ok(vec![Measure::rate("keys walked", keys, elapsed)])
}
