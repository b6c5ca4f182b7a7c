//! The text of the growth.

use super::{Growth, file_name};
use crate::report::markdown::{grouped, name_of, readable, write_absent, write_engines, write_plot};
use crate::results::{EngineNote, Results};
use std::fmt::Write as _;

/// The whole text.
pub fn text(files: &[Results], engines: &[EngineNote], growths: &[Growth]) -> String {
    let mut text = introduction(files);
    write_engines(&mut text, engines);
    for growth in growths {
        write_growth(&mut text, growth, files);
    }
    text
}

fn introduction(files: &[Results]) -> String {
    let first = &files[0];
    let mut text = format!(
        "# Growth\n\n\
         Written by `benches/compare`, whose README says what is measured and how. What one operation costs as the number of \
         keys grows: medians over the rounds, less is better; a rate is given as the time of one operation, that of all \
         threads together.\n\n\
         How to read it: a level line is a cost that does not depend on the number of keys. Where both axes are \
         logarithmic, equal distances are equal ratios, and a cost that grows as the keys do rises by a power of ten for \
         each power of ten to the right.\n\n\
         | | |\n| --- | --- |\n\
         | machine | {} |\n| kernel | {} |\n| file system | {} |\n\
         | keys | of 16 to 40 bytes, values of {} bytes |\n| class | `{}` |\n\n\
         | keys | rounds | date | command |\n| ---: | ---: | --- | --- |\n",
        distinct(files, |results| results.machine.hardware()),
        distinct(files, |results| results.machine.kernel.clone()),
        distinct(files, |results| results.machine.file_system.clone()),
        first.value_bytes,
        first.durability.name(),
    );
    for results in files {
        let _ = writeln!(
            text,
            "| {} | {} | {} | `{}` |",
            grouped(results.keys as f64),
            results.rounds,
            results.date,
            results.command
        );
    }
    text.push('\n');
    text
}

/// What the files say, once if all say the same.
fn distinct(files: &[Results], say: impl Fn(&Results) -> String) -> String {
    let mut said: Vec<String> = Vec::new();
    for words in files.iter().map(say) {
        if !said.contains(&words) {
            said.push(words);
        }
    }
    said.join("; ")
}

fn write_growth(text: &mut String, growth: &Growth, files: &[Results]) {
    let (workload, cost) = (growth.workload, &growth.cost);
    let _ = write!(
        text,
        "\n## `{}`\n\n{}.\n\n| keys (costs: {cost}) |",
        workload.name, workload.title
    );
    for line in &growth.lines {
        let _ = write!(text, " {} |", name_of(&line.engine, line.is_yardstick));
    }
    let _ = writeln!(text, "\n| ---: |{}", " ---: |".repeat(growth.lines.len()));
    for results in files {
        let _ = write!(text, "| {} |", grouped(results.keys as f64));
        for line in &growth.lines {
            let point = line.points.iter().find(|(keys, _)| *keys == results.keys);
            let _ = write!(
                text,
                " {} |",
                point.map_or_else(|| "-".into(), |(_, cost)| readable(*cost))
            );
        }
        text.push('\n');
    }
    write_plot(text, workload.name, cost, &file_name(workload));
    write_absent(text, &growth.absent);
}
