//! Growth: the cost of one operation as the number of keys grows, from results of several numbers
//! of keys.

use super::summary::{self, Summary};
use super::{make_plots_folder, markdown, write_text};
use crate::arguments::GrowthArguments;
use crate::outcome::Better;
use crate::results::{EngineNote, Results};
use crate::workloads::{self, Workload};
use anyhow::{Result, ensure};
use std::path::PathBuf;

mod axis;
mod plot;
mod text;

/// The first measure of a workload, as the cost of one operation at each number of keys.
pub struct Growth {
    pub workload: &'static Workload,
    /// The measure and its unit.
    pub cost: String,
    /// Whether the cost is a time. Times may differ by orders of magnitude, so their axis is
    /// logarithmic.
    pub is_time: bool,
    /// In the order of the engines.
    pub lines: Vec<Line>,
    /// Engines without numbers in at least one file, with the reason.
    pub absent: Vec<(String, String)>,
}

/// One engine's costs.
pub struct Line {
    pub engine: String,
    pub is_yardstick: bool,
    /// Its index among all peers or among all yardsticks, so that it has the same color in every
    /// plot.
    pub place: usize,
    /// Numbers of keys at which the engine was measured, with the median cost at each.
    pub points: Vec<(u64, f64)>,
}

/// Writes the text and the plots.
pub fn write(arguments: &GrowthArguments) -> Result<()> {
    let files = in_order(
        arguments
            .results
            .iter()
            .map(|path| Ok((path.clone(), Results::read(path)?)))
            .collect::<Result<_>>()?,
    )?;
    let engines = engines(&files);
    let growths: Vec<Growth> = workloads::all()
        .into_iter()
        .filter_map(|workload| of_workload(&files, &engines, workload))
        .collect();
    ensure!(!growths.is_empty(), "no workload has numbers in all of these files");
    let plots = make_plots_folder(&arguments.into)?;
    for growth in &growths {
        plot::write(growth, &plots.join(file_name(growth.workload)))?;
    }
    let path = arguments.into.join("performance-growth.md");
    write_text(&path, &text::text(&files, &engines, &growths))?;
    println!("{} and {} plots", path.display(), growths.len());
    Ok(())
}

/// The file name of a workload's plot.
pub fn file_name(workload: &Workload) -> String {
    format!("growth-{}.svg", workload.name)
}

/// Results by ascending number of keys. They must have the same value size and durability class.
fn in_order(mut files: Vec<(PathBuf, Results)>) -> Result<Vec<Results>> {
    ensure!(
        files.len() > 1,
        "growth takes two files of results or more, each of another number of keys"
    );
    files.sort_by_key(|(_, results)| results.keys);
    for pair in files.windows(2) {
        let ((one_path, one), (other_path, other)) = (&pair[0], &pair[1]);
        let names = format!("{} and {}", one_path.display(), other_path.display());
        let keys = markdown::grouped(one.keys as f64);
        ensure!(one.keys != other.keys, "{names} both have {keys} keys");
        let (bytes, other_bytes) = (one.value_bytes, other.value_bytes);
        ensure!(
            bytes == other_bytes,
            "{names} differ in the size of values: {bytes} and {other_bytes} bytes"
        );
        let (class, other_class) = (one.durability.name(), other.durability.name());
        ensure!(
            class == other_class,
            "{names} differ in the class of durability: {class} and {other_class}"
        );
    }
    Ok(files.into_iter().map(|(_, results)| results).collect())
}

/// The engines of all files; an engine is repeated if its description differs between files.
fn engines(files: &[Results]) -> Vec<EngineNote> {
    let mut engines: Vec<EngineNote> = Vec::new();
    for engine in files.iter().flat_map(|results| &results.engines) {
        if !engines.contains(engine) {
            engines.push(engine.clone());
        }
    }
    engines
}

/// None if the first measure of the workload is not in every file.
fn of_workload(files: &[Results], engines: &[EngineNote], workload: &'static Workload) -> Option<Growth> {
    let (mut summaries, mut absent) = (Vec::new(), Vec::new());
    for results in files {
        let (mut measures, reasons) = summary::of_workload(results, workload.name);
        if measures.is_empty() {
            return None;
        }
        summaries.push((results.keys, measures.swap_remove(0)));
        for reason in reasons {
            if !absent.contains(&reason) {
                absent.push(reason);
            }
        }
    }
    let first = &summaries[0].1;
    if summaries.iter().any(|(_, other)| other.measure != first.measure) {
        return None;
    }
    let (mut lines, mut places): (Vec<Line>, [Vec<&str>; 2]) = (Vec::new(), Default::default());
    for engine in engines {
        let places = &mut places[usize::from(engine.is_yardstick)];
        if places.contains(&engine.name.as_str()) {
            continue;
        }
        places.push(&engine.name);
        let points = points(&summaries, &engine.name);
        if !points.is_empty() {
            lines.push(Line {
                engine: engine.name.clone(),
                is_yardstick: engine.is_yardstick,
                place: places.len() - 1,
                points,
            });
        }
    }
    Some(Growth {
        workload,
        cost: cost_name(first),
        is_time: first.better == Better::Higher || ["ms", "µs"].contains(&first.unit.as_str()),
        lines,
        absent,
    })
}

fn points(summaries: &[(u64, Summary)], engine: &str) -> Vec<(u64, f64)> {
    let point = |(keys, summary): &(u64, Summary)| {
        let row = summary.rows.iter().find(|row| row.engine == engine)?;
        let cost = match summary.better {
            Better::Higher => 1e9 / row.median,
            Better::Lower => row.median,
        };
        cost.is_finite().then_some((*keys, cost))
    };
    summaries.iter().filter_map(point).collect()
}

/// Rates are named by a plural: the rate "gets" becomes the cost "ns a get".
fn cost_name(summary: &Summary) -> String {
    let measure = summary.measure.as_str();
    if summary.better == Better::Lower {
        return format!("{measure}, {}", summary.unit);
    }
    let (operations, rest) = measure.split_at(measure.find(' ').unwrap_or(measure.len()));
    let article = if operations.starts_with('o') { "an" } else { "a" };
    format!("ns {article} {}{rest}", operations.trim_end_matches('s'))
}

#[cfg(test)]
mod tests;
