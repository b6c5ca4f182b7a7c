//! A tour of embercask on a real disk: what the Workers KV tutorial does, then a directory tree as
//! cached pages, with expiry, overwriting, deleting, compaction and reopening. Everything is read
//! back and compared; a mismatch ends the tour with a message and a non-zero exit status.
//!
//! `cargo run --release -p embercask-tour` stores the sources that cargo has unpacked on this
//! machine, in a temporary directory that is removed at the end. `-- PATH` stores the files below
//! PATH instead; `-- --keep DIR` keeps the store in DIR, which must be empty or missing.

mod page;
mod pages;
mod report;
mod source;
mod tutorial;

use std::error::Error;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use embercask::Store;
use pages::Cache;
use source::Source;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const USAGE: &str = "usage: cargo run --release -p embercask-tour -- [--keep DIR] [PATH]";

fn main() -> ExitCode {
    match Arguments::parse(std::env::args_os().skip(1)).and_then(tour) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the tour ended early: {error}");
            ExitCode::FAILURE
        }
    }
}

fn tour(arguments: Arguments) -> Result<()> {
    let started = Instant::now();
    let home = Home::prepare(arguments.keep)?;
    let source = Source::choose(arguments.tree)?;

    let store = part("Open a store on disk", || {
        println!("  directory: {}", home.path.display());
        open(&home)
    })?;
    part(
        "What the Workers KV tutorial does (every write waits for the disk: Durability::Sync)",
        || tutorial::walk(&store),
    )?;

    let mut cache = part(&format!("Store {} as cached pages", source.description), || {
        Cache::fill(&store, source.files(&home.path)?)
    })?;
    part("List pages by folder", || cache.list_folders())?;
    part("Read every page back and compare", || {
        cache.compare_values().map(|()| cache.announce_lifetimes())
    })?;
    part("Overwrite a quarter of the pages, delete half of them", || {
        cache.change()
    })?;
    part("Let pages expire", || cache.await_expiry())?;
    part("Compact", || report::compaction(&store))?;

    drop(cache.release());
    part("Close the store", || Ok(store.close()?))?;
    let store = part("Open it again", || open(&home))?;
    part("Check again which pages exist and what they hold", || {
        tutorial::look_again(&store)?;
        cache.reattach(&store)?;
        cache.compare_all()
    })?;
    part("Statistics", || report::statistics(&store))?;
    store.close()?;

    println!(
        "\nEverything was correct. The tour took {}.",
        report::seconds(started.elapsed())
    );
    home.farewell()
}

/// Opens the store with defaults, except that compaction drops expired records without a grace
/// period.
fn open(home: &Home) -> Result<Store> {
    let store = Store::options().expiry_grace(Duration::ZERO).open(&home.path)?;
    report::recovery(store.recovery_report());
    Ok(store)
}

/// Prints the title of a part of the tour, runs it, and prints how long it took.
fn part<T>(title: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    println!("\n{title}");
    let started = Instant::now();
    let outcome = work()?;
    println!("  took {}", report::seconds(started.elapsed()));
    Ok(outcome)
}

/// Ends the tour with this message unless the condition holds.
fn ensure(holds: bool, message: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(message().into()) }
}

/// The command line.
#[derive(Default)]
struct Arguments {
    tree: Option<PathBuf>,
    keep: Option<PathBuf>,
}

impl Arguments {
    fn parse(mut given: impl Iterator<Item = OsString>) -> Result<Arguments> {
        let mut arguments = Arguments::default();
        while let Some(argument) = given.next() {
            match argument.to_str() {
                Some("--keep") => arguments.keep = Some(given.next().ok_or(USAGE)?.into()),
                Some(option) if option.starts_with('-') => return Err(USAGE.into()),
                _ if arguments.tree.is_some() => return Err(USAGE.into()),
                _ => arguments.tree = Some(argument.into()),
            }
        }
        Ok(arguments)
    }
}

/// The store's directory during the tour.
struct Home {
    path: PathBuf,
    /// Removes the directory when dropped.
    temporary: Option<tempfile::TempDir>,
}

impl Home {
    fn prepare(keep: Option<PathBuf>) -> Result<Home> {
        let Some(path) = keep else {
            let temporary = tempfile::Builder::new().prefix("embercask-tour-").tempdir()?;
            return Ok(Home {
                path: temporary.path().canonicalize()?,
                temporary: Some(temporary),
            });
        };
        std::fs::create_dir_all(&path)?;
        ensure(path.read_dir()?.next().is_none(), || {
            format!(
                "{} is not empty; --keep takes an empty or missing directory",
                path.display()
            )
        })?;
        Ok(Home {
            path: path.canonicalize()?,
            temporary: None,
        })
    }

    fn farewell(self) -> Result<()> {
        match self.temporary {
            Some(temporary) => temporary.close()?,
            None => println!("The store stays in {}.", self.path.display()),
        }
        Ok(())
    }
}
