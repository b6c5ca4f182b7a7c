//! The machine that the numbers were measured on.

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// The properties of a machine that matter to a store.
#[derive(Serialize, Deserialize)]
pub struct Machine {
    pub cores: usize,
    pub processor: String,
    pub memory_bytes: u64,
    pub kernel: String,
    /// The file system of the directory of the stores.
    pub file_system: String,
}

impl Machine {
    /// A description of the hardware.
    pub fn hardware(&self) -> String {
        let gibibytes = self.memory_bytes as f64 / f64::from(1 << 30);
        format!("{} cores, {}, {gibibytes:.0} GiB of memory", self.cores, self.processor)
    }

    /// This machine.
    pub fn of(directory: &Path) -> Result<Machine> {
        let kilobytes =
            first_field("/proc/meminfo", "MemTotal:").and_then(|value| value.split(' ').next()?.parse().ok());
        Ok(Machine {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            processor: first_field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".into()),
            memory_bytes: kilobytes.unwrap_or(0) * 1024,
            kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease")
                .unwrap_or_default()
                .trim()
                .to_owned(),
            file_system: file_system(directory)?,
        })
    }
}

fn first_field(path: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(value.trim_start_matches([' ', '\t', ':']).to_owned())
}

/// Type and options of the mount that contains the directory: the one with the longest matching
/// path.
fn file_system(directory: &Path) -> Result<String> {
    let directory = directory
        .canonicalize()
        .with_context(|| format!("find {}", directory.display()))?;
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("read the mounts")?;
    let mut found = (0, "unknown".to_owned());
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(1);
        let (Some(path), Some(kind), Some(options)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        if directory.starts_with(path) && path.len() >= found.0 {
            found = (path.len(), format!("{kind} ({options})"));
        }
    }
    Ok(found.1)
}

/// Today in UTC, as in 2026-01-31.
pub fn today() -> Result<String> {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("a clock before 1970")?
        .as_secs();
    Ok(date_of_day(seconds / 86_400))
}

/// The date of a day number since 1970. Counts in eras of 400 years that begin in March, so that
/// leap days come last.
fn date_of_day(day: u64) -> String {
    let day = day + 719_468;
    let (era, day_of_era) = (day / 146_097, day % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day_of_month:02}")
}

#[cfg(test)]
mod tests {
    use super::date_of_day;

    #[test]
    fn days_have_their_dates() {
        let dates = [
            (0, "1970-01-01"),
            (11_016, "2000-02-29"),
            (20_453, "2025-12-31"),
            (20_454, "2026-01-01"),
        ];
        dates
            .iter()
            .for_each(|(day, date)| assert_eq!(date_of_day(*day), *date));
    }
}
