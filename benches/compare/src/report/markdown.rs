//! The text of the report.

use super::summary::{Row, Summary};
use super::{PLOTS, Section, file_name};
use crate::outcome::Better;
use crate::results::{EngineNote, Results};
use std::fmt::Write as _;

/// The whole text.
pub fn text(results: &Results, sections: &[Section]) -> String {
    let mut text = introduction(results);
    for section in sections {
        write_section(&mut text, section);
    }
    text
}

fn introduction(results: &Results) -> String {
    let machine = &results.machine;
    let mut text = format!(
        "# Performance\n\n\
         Written by `benches/compare`, whose README says what is measured and how. Every value that was read was compared \
         with what was written. Medians of {} round(s); *against the best peer* is how many times as good an engine is as \
         the best of the others, yardsticks left out.\n\n\
         | | |\n| --- | --- |\n\
         | date | {} |\n| machine | {} |\n| kernel | {} |\n| file system | {} |\n\
         | keys | {} of 16 to 40 bytes, values of {} bytes |\n| class | `{}` |\n| command | `{}` |\n\n",
        results.rounds,
        results.date,
        machine.hardware(),
        machine.kernel,
        machine.file_system,
        grouped(results.keys as f64),
        results.value_bytes,
        results.durability.name(),
        results.command,
    );
    write_engines(&mut text, &results.engines);
    text
}

/// The versions of engines and how they were set.
pub fn write_engines(text: &mut String, engines: &[EngineNote]) {
    text.push_str("| engine | version | settings | settings where each commit waits for the device |\n| --- | --- | --- | --- |\n");
    for engine in engines {
        let yardstick = if engine.is_yardstick { " (yardstick)" } else { "" };
        let same = if engine.settings == engine.settings_sync {
            "the same"
        } else {
            &engine.settings_sync
        };
        let _ = writeln!(
            text,
            "| {}{yardstick} | {} | {} | {same} |",
            engine.name, engine.version, engine.settings
        );
    }
}

fn write_section(text: &mut String, section: &Section) {
    let workload = section.workload;
    let _ = writeln!(text, "\n## `{}`\n\n{}.", workload.name, workload.title);
    for summary in &section.summaries {
        write_table(text, summary);
        write_plot(text, workload.name, &summary.measure, &file_name(workload, summary));
    }
    write_absent(text, &section.absent);
}

/// Shows a plot.
pub fn write_plot(text: &mut String, workload: &str, measure: &str, file: &str) {
    let _ = writeln!(text, "\n![{workload}: {measure}]({PLOTS}/{file})");
}

/// Which engines have no numbers, and why.
pub fn write_absent(text: &mut String, absent: &[(String, String)]) {
    if !absent.is_empty() {
        text.push_str("\nWithout numbers: ");
        let reasons: Vec<String> = absent
            .iter()
            .map(|(engine, reason)| format!("{engine} ({reason})"))
            .collect();
        let _ = writeln!(text, "{}.", reasons.join("; "));
    }
}

fn write_table(text: &mut String, summary: &Summary) {
    let better = match summary.better {
        Better::Higher => "more is better",
        Better::Lower => "less is better",
    };
    let (measure, unit) = (&summary.measure, &summary.unit);
    let _ = write!(
        text,
        "\n| {measure}, {unit}, {better} | median | least to most | against the best peer |\n| --- | ---: | ---: | ---: |\n"
    );
    for row in &summary.rows {
        let Row {
            engine,
            median,
            least,
            most,
            ..
        } = row;
        let ratio = row.against_best_peer.map_or_else(|| "-".into(), readable);
        let name = name_of(engine, row.is_yardstick);
        let range = format!("{} to {}", readable(*least), readable(*most));
        let _ = writeln!(text, "| {name} | {} | {range} | {ratio} |", readable(*median));
    }
}

/// The name of an engine in a table; those of yardsticks lean.
pub fn name_of(engine: &str, is_yardstick: bool) -> String {
    if is_yardstick {
        format!("*{engine}*")
    } else {
        engine.to_owned()
    }
}

/// About three digits that count, or whole thousands with commas.
pub fn readable(value: f64) -> String {
    match value {
        _ if value >= 100.0 => grouped(value),
        _ if value >= 10.0 => format!("{value:.1}"),
        _ if value >= 0.1 || value <= 0.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// Whole, with commas between thousands.
pub fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::readable;

    #[test]
    fn numbers_are_short_and_readable() {
        let cases = [
            (0.0, "0.00"),
            (0.01234, "0.0123"),
            (1.234, "1.23"),
            (45.67, "45.7"),
            (999.6, "1,000"),
            (1_234_567.0, "1,234,567"),
        ];
        cases
            .iter()
            .for_each(|(value, text)| assert_eq!(readable(*value), *text));
    }
}
