//! One run: an engine, an empty directory, the size of the work.

use crate::data::{self, Key};
use crate::durability::Durability;
use crate::engine::{Description, Engine};
use anyhow::{Context as _, Result, ensure};
use std::path::PathBuf;
use std::process::Command;

/// Makes the key of a number.
pub type MakeKey = fn(u64) -> Key;

/// Keys of a commit when a store is loaded, outside of what is timed.
const LOAD_BATCH: u64 = 1_000;
/// Of what was written, one key in so many is read back outside of what is timed.
const VERIFY_STEP: usize = 16;

/// What a workload is given.
#[derive(Clone)]
pub struct Context {
    pub engine: &'static Description,
    pub directory: PathBuf,
    pub keys: u64,
    pub value_bytes: usize,
    pub durability: Durability,
}

impl Context {
    /// A process of this program that is given this run: what `StoreArguments` reads.
    pub fn command(&self, subcommand: &str) -> Result<Command> {
        let program = std::env::current_exe().context("the path of this program")?;
        let mut command = Command::new(program);
        command
            .args([subcommand, "--engine", self.engine.name])
            .args(["--keys", &self.keys.to_string()])
            .args(["--value-bytes", &self.value_bytes.to_string()])
            .args(["--durability", self.durability.name(), "--directory"])
            .arg(&self.directory);
        Ok(command)
    }

    /// Opens the engine.
    pub fn open(&self) -> Result<Box<dyn Engine>> {
        (self.engine.open)(&self.directory, self.durability).with_context(|| format!("open {}", self.engine.name))
    }

    /// Opens the engine and puts every key, in the state in which it reads best.
    pub fn open_loaded(&self, make: MakeKey) -> Result<Box<dyn Engine>> {
        let engine = self.open()?;
        self.load(&*engine, make, 0..self.keys)?;
        engine.settle()?;
        Ok(engine)
    }

    /// Puts keys in large commits.
    pub fn load(&self, engine: &dyn Engine, make: MakeKey, numbers: std::ops::Range<u64>) -> Result<()> {
        let mut start = numbers.start;
        while start < numbers.end {
            let end = (start + LOAD_BATCH).min(numbers.end);
            let entries: Vec<_> = (start..end)
                .map(|number| (make(number), self.value(number, 0)))
                .collect();
            engine.put_batch(&entries)?;
            start = end;
        }
        Ok(())
    }

    /// The value of a key as of a generation.
    pub fn value(&self, number: u64, generation: u16) -> Vec<u8> {
        data::value(number, generation, self.value_bytes)
    }

    /// Single writes that a workload does: fewer in class `sync`, in which each waits for the
    /// device.
    pub fn writes(&self) -> u64 {
        match self.durability {
            Durability::Os => self.keys,
            Durability::Sync => (self.keys / 100).max(100).min(self.keys),
        }
    }

    /// Gets one key and compares its value, of whatever generation.
    pub fn check(&self, engine: &dyn Engine, make: MakeKey, number: u64) -> Result<()> {
        engine.get(&make(number), &mut |value| {
            data::check_value(value, number, self.value_bytes).map(drop)
        })
    }

    /// Reads some of the keys back, unless the engine cannot.
    pub fn verify(
        &self,
        engine: &dyn Engine,
        make: MakeKey,
        numbers: impl Iterator<Item = u64>,
        generation: u16,
    ) -> Result<()> {
        if self.engine.reason_to_skip(&[crate::engine::Need::Reads]).is_some() {
            return Ok(());
        }
        for number in numbers.step_by(VERIFY_STEP) {
            engine.get(&make(number), &mut |value| {
                let found = data::check_value(value, number, self.value_bytes)?;
                ensure!(
                    found == generation,
                    "number {number} has generation {found} instead of {generation}"
                );
                Ok(())
            })?;
        }
        Ok(())
    }
}
