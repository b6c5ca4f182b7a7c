//! Compares embercask with other embedded key-value engines, and all of them with the limits of the
//! machine.
//!
//! `compare` decides the order of the runs, `child` runs each in its own process, `workloads`
//! defines the work and `engines` wraps the engines; `results` stores the measurements and `report`
//! writes them up.

mod arguments;
mod child;
mod compare;
mod context;
mod data;
mod durability;
mod engine;
mod engines;
mod filler;
mod machine;
mod outcome;
mod process;
mod random;
mod report;
mod results;
mod threads;
mod versions;
mod workloads;

use arguments::{Arguments, Command};
use clap::Parser;

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Run(arguments) => compare::run(&arguments),
        Command::Report(arguments) => report::write(&arguments),
        Command::Growth(arguments) => report::growth::write(&arguments),
        Command::List => {
            list();
            Ok(())
        }
        Command::Child(arguments) => child::run(arguments),
        Command::Filler(arguments) => filler::fill(&arguments.store.context()?, arguments.ending),
    }
}

fn list() {
    for engine in engines::ALL {
        println!("engine    {:<18} {}", engine.name, versions::of_engine(engine));
    }
    for workload in workloads::all() {
        println!("workload  {:<18} {}", workload.name, workload.title);
    }
}
