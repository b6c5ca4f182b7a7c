//! The report: `performance.md` with its tables, and a plot per measure in a folder next to it;
//! `growth` writes the report over several numbers of keys.

use crate::arguments::ReportArguments;
use crate::results::Results;
use crate::workloads::{self, Workload};
use anyhow::{Context as _, Result};
use std::path::{Path, PathBuf};
use summary::Summary;

pub mod growth;
mod markdown;
mod plot;
mod summary;

/// The folder of the plots, next to the text.
const PLOTS: &str = "performance";

/// The report's section on one workload.
pub struct Section {
    pub workload: &'static Workload,
    pub summaries: Vec<Summary>,
    /// Engines without numbers, with the reason.
    pub absent: Vec<(String, String)>,
}

/// Writes the text and the plots.
pub fn write(arguments: &ReportArguments) -> Result<()> {
    let results = Results::read(&arguments.results)?;
    let plots = make_plots_folder(&arguments.into)?;
    let mut sections = Vec::new();
    for workload in workloads::all() {
        let (summaries, absent) = summary::of_workload(&results, workload.name);
        if summaries.is_empty() && absent.is_empty() {
            continue;
        }
        for summary in &summaries {
            plot::write(summary, workload.name, &plots.join(file_name(workload, summary)))?;
        }
        sections.push(Section {
            workload,
            summaries,
            absent,
        });
    }
    let path = arguments.into.join("performance.md");
    write_text(&path, &markdown::text(&results, &sections))?;
    println!(
        "{} and {} plots",
        path.display(),
        sections.iter().map(|section| section.summaries.len()).sum::<usize>()
    );
    Ok(())
}

/// The file name of a measure's plot: words of letters and digits, joined by hyphens.
pub fn file_name(workload: &Workload, summary: &Summary) -> String {
    let words: Vec<&str> = summary
        .measure
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|w| !w.is_empty())
        .collect();
    format!("{}-{}.svg", workload.name, words.join("-"))
}

/// Creates the folder of the plots in that of the text.
fn make_plots_folder(into: &Path) -> Result<PathBuf> {
    let plots = into.join(PLOTS);
    std::fs::create_dir_all(&plots).with_context(|| format!("make {}", plots.display()))?;
    Ok(plots)
}

fn write_text(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
}
