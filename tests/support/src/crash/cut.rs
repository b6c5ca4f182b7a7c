//! Ways a crash ends a run, and a text form of them from which one state can be built again.

use std::fmt;
use std::str::FromStr;

use embercask::storage::CutPolicy;

use crate::mix;

/// How the machine, or the process on it, stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The process is killed between two calls.
    Kill,
    /// The process is killed during a write, after the system took this many bytes.
    KillWithin(usize),
    /// Power fails.
    Power(CutPolicy),
}

impl Cut {
    /// Whether everything the system had taken survives.
    pub fn keeps_everything(&self) -> bool {
        !matches!(self, Cut::Power(policy) if *policy != CutPolicy::KeepAll)
    }

    pub fn kind(&self) -> &'static str {
        match self {
            Cut::Kill => "kill",
            Cut::KillWithin(_) => "kill within a write",
            Cut::Power(CutPolicy::LoseUnsynced) => "power, nothing kept",
            Cut::Power(CutPolicy::KeepAll) => "power, everything kept",
            Cut::Power(CutPolicy::KeepPrefix { .. }) => "power, a prefix kept",
            Cut::Power(CutPolicy::Random { .. }) => "power, any of it kept",
        }
    }

    /// A number that differs from cut to cut.
    pub fn number(&self) -> u64 {
        match self {
            Cut::Kill => mix(&[0]),
            Cut::KillWithin(bytes) => mix(&[1, *bytes as u64]),
            Cut::Power(CutPolicy::LoseUnsynced) => mix(&[2]),
            Cut::Power(CutPolicy::KeepAll) => mix(&[3]),
            Cut::Power(CutPolicy::KeepPrefix { operations }) => mix(&[4, *operations as u64]),
            Cut::Power(CutPolicy::Random { seed, grain }) => mix(&[5, *seed, *grain as u64]),
        }
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cut::Kill => write!(f, "kill"),
            Cut::KillWithin(bytes) => write!(f, "kill-within:{bytes}"),
            Cut::Power(CutPolicy::LoseUnsynced) => write!(f, "lose"),
            Cut::Power(CutPolicy::KeepAll) => write!(f, "keep"),
            Cut::Power(CutPolicy::KeepPrefix { operations }) => write!(f, "prefix:{operations}"),
            Cut::Power(CutPolicy::Random { seed, grain }) => write!(f, "random:{seed}:{grain}"),
        }
    }
}

impl FromStr for Cut {
    type Err = String;

    fn from_str(text: &str) -> Result<Cut, String> {
        let mut parts = text.split(':');
        let name = parts.next().unwrap_or_default();
        let mut number = || -> Result<u64, String> {
            let part = parts.next().ok_or_else(|| format!("{text}: a number is missing"))?;
            part.parse().map_err(|_| format!("{text}: {part} is not a number"))
        };
        Ok(match name {
            "kill" => Cut::Kill,
            "kill-within" => Cut::KillWithin(number()? as usize),
            "lose" => Cut::Power(CutPolicy::LoseUnsynced),
            "keep" => Cut::Power(CutPolicy::KeepAll),
            "prefix" => Cut::Power(CutPolicy::KeepPrefix {
                operations: number()? as usize,
            }),
            "random" => Cut::Power(CutPolicy::Random {
                seed: number()?,
                grain: number()? as usize,
            }),
            _ => return Err(format!("{text} is not a cut")),
        })
    }
}

/// Where to find a state: the step of the workload before which it was cut off, and how; after a
/// second crash, also the step of the recovery, and so on.
pub type Place = Vec<(usize, Cut)>;

pub fn write_place(workload: &str, place: &Place) -> String {
    let mut text = workload.to_owned();
    for (step, cut) in place {
        text += &format!("/{step}/{cut}");
    }
    text
}

/// The workload's name and the place in it.
pub fn read_place(text: &str) -> Result<(String, Place), String> {
    let mut parts = text.split('/');
    let workload = parts.next().unwrap_or_default().to_owned();
    let mut place = Place::new();
    while let Some(step) = parts.next() {
        let step = step.parse().map_err(|_| format!("{step} is not a step"))?;
        let cut = parts.next().ok_or_else(|| format!("{text}: a cut is missing"))?;
        place.push((step, cut.parse()?));
    }
    Ok((workload, place))
}
