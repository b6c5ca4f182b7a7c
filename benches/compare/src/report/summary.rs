//! Medians over rounds, and how they compare with the best peer.

use crate::outcome::{Better, Measure, Outcome};
use crate::results::Results;

/// One measure of one workload, for all engines that have it.
pub struct Summary {
    pub measure: String,
    pub unit: String,
    pub better: Better,
    /// In the order of the engines.
    pub rows: Vec<Row>,
}

/// One engine's numbers.
pub struct Row {
    pub engine: String,
    pub is_yardstick: bool,
    pub median: f64,
    pub least: f64,
    pub most: f64,
    /// How many times as good as the best of the other engines; None for yardsticks, which are not
    /// compared.
    pub against_best_peer: Option<f64>,
}

/// The measures of a workload, and the engines without numbers for it, with the reason.
pub fn of_workload(results: &Results, workload: &str) -> (Vec<Summary>, Vec<(String, String)>) {
    let (mut summaries, mut absent): (Vec<Summary>, Vec<(String, String)>) = (Vec::new(), Vec::new());
    for engine in &results.engines {
        let runs = results
            .runs
            .iter()
            .filter(|run| run.workload == workload && run.engine == engine.name);
        let mut measured: Vec<&[Measure]> = Vec::new();
        for run in runs {
            let reason = match &run.outcome {
                Outcome::Measured(measures) => {
                    measured.push(measures);
                    continue;
                }
                Outcome::Skipped(reason) => reason.clone(),
                Outcome::Failed(reason) => format!("**failed in round {}**: {reason}", run.round + 1),
            };
            let entry = (engine.name.clone(), reason);
            if !absent.contains(&entry) {
                absent.push(entry);
            }
        }
        for measure in measured.first().copied().unwrap_or_default() {
            let same = measured
                .iter()
                .flat_map(|measures| measures.iter())
                .filter(|other| other.name == measure.name);
            let row = Row::new(
                &engine.name,
                engine.is_yardstick,
                same.map(|other| other.value).collect(),
            );
            match summaries.iter_mut().find(|summary| summary.measure == measure.name) {
                Some(summary) => summary.rows.push(row),
                None => summaries.push(Summary {
                    measure: measure.name.clone(),
                    unit: measure.unit.clone(),
                    better: measure.better,
                    rows: vec![row],
                }),
            }
        }
    }
    summaries.iter_mut().for_each(Summary::compare);
    (summaries, absent)
}

impl Row {
    fn new(engine: &str, is_yardstick: bool, mut values: Vec<f64>) -> Row {
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            (values[middle - 1] + values[middle]) / 2.0
        };
        let (least, most) = (values[0], values[values.len() - 1]);
        Row {
            engine: engine.into(),
            is_yardstick,
            median,
            least,
            most,
            against_best_peer: None,
        }
    }
}

impl Summary {
    fn compare(&mut self) {
        let goodness = |median: f64| match self.better {
            Better::Higher => median,
            Better::Lower => 1.0 / median,
        };
        let ratios: Vec<Option<f64>> = (0..self.rows.len())
            .map(|own| {
                let peers = self
                    .rows
                    .iter()
                    .enumerate()
                    .filter(|(other, row)| *other != own && !row.is_yardstick);
                let best = peers.map(|(_, row)| goodness(row.median)).max_by(f64::total_cmp)?;
                let ratio = goodness(self.rows[own].median) / best;
                (!self.rows[own].is_yardstick && ratio.is_finite()).then_some(ratio)
            })
            .collect();
        self.rows
            .iter_mut()
            .zip(ratios)
            .for_each(|(row, ratio)| row.against_best_peer = ratio);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(better: Better) -> Summary {
        let row = |name: &str, yardstick, values: &[f64]| Row::new(name, yardstick, values.to_vec());
        let rows = vec![
            row("a", false, &[30.0, 10.0, 20.0]),
            row("b", false, &[5.0, 15.0]),
            row("fast", true, &[1000.0]),
        ];
        let mut summary = Summary {
            measure: "m".into(),
            unit: "u".into(),
            better,
            rows,
        };
        summary.compare();
        summary
    }

    #[test]
    fn medians_are_compared_with_the_best_other_engine() {
        let ratios = |better| {
            summary(better)
                .rows
                .iter()
                .map(|row| row.against_best_peer)
                .collect::<Vec<_>>()
        };
        assert_eq!(ratios(Better::Higher), [Some(2.0), Some(0.5), None]);
        assert_eq!(ratios(Better::Lower), [Some(0.5), Some(2.0), None]);
    }
}
