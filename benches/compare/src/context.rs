//! One run: an engine, an empty directory and the size of the workload.

use crate::data::{self, Key};
use crate::durability::Durability;
use crate::engine::{Description, Engine, Transactional};
use anyhow::{Context as _, Result, ensure};
use std::path::PathBuf;
use std::process::Command;

/// Makes the key of a number.
pub type MakeKey = fn(u64) -> Key;

/// Keys per commit when a store is loaded, untimed.
const LOAD_BATCH: u64 = 1_000;
/// One in this many of the written keys is read back, untimed.
const VERIFY_STEP: usize = 16;

/// The input of a workload.
#[derive(Clone)]
pub struct Context {
    pub engine: &'static Description,
    pub directory: PathBuf,
    pub keys: u64,
    pub value_bytes: usize,
    pub durability: Durability,
}

impl Context {
    /// A child process of this program for this run, with the arguments that `StoreArguments`
    /// reads.
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

    /// Opens the engine for transactions.
    pub fn open_transactional(&self) -> Result<Box<dyn Transactional>> {
        let name = self.engine.name;
        let open = self.engine.open_transactional;
        let open = open.with_context(|| format!("{name} cannot be opened for transactions"))?;
        open(&self.directory, self.durability).with_context(|| format!("open {name} for transactions"))
    }

    /// Opens the engine, puts every key, and lets it settle into the state in which it reads
    /// fastest.
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

    /// The value of a key in a generation.
    pub fn value(&self, number: u64, generation: u16) -> Vec<u8> {
        data::value(number, generation, self.value_bytes)
    }

    /// Number of single writes of a workload: fewer in class `sync`, where each waits for the
    /// device.
    pub fn writes(&self) -> u64 {
        match self.durability {
            Durability::Os => self.keys,
            Durability::Sync => (self.keys / 100).max(100).min(self.keys),
        }
    }

    /// Gets one key and checks its value, of any generation.
    pub fn check(&self, engine: &dyn Engine, make: MakeKey, number: u64) -> Result<()> {
        engine.get(&make(number), &mut |value| {
            data::check_value(value, number, self.value_bytes).map(drop)
        })
    }

    /// Reads some of the keys back, if the engine can read.
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
