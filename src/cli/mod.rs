//! The command line. `arguments` says what can be said, `session` opens the store, and each other module does one group
//! of commands.

pub(crate) mod arguments;
mod bench;
#[cfg(not(feature = "server"))]
#[path = "../server/parse/blanks.rs"]
mod blanks;
mod bulk;
pub(crate) mod failure;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod generate;
mod inspect;
pub(crate) mod interrupt;
mod key;
mod maintain;
mod namespace;
#[cfg(not(feature = "server"))]
#[path = "../server/parse/objects.rs"]
mod objects;
pub(crate) mod output;
mod random;
mod session;
mod shell;
pub(crate) mod stats;
pub(crate) mod text;
mod transfer;
mod writer;

use std::process::ExitCode;

#[cfg(feature = "server")]
use crate::server::parse::{blanks, objects};

use clap::Parser;

use arguments::{Arguments, Command};
use failure::{Failure, Outcome};
use session::Session;

/// Runs the command that the arguments say.
pub(crate) fn main() -> ExitCode {
    interrupt::install();
    // Wrong arguments, and the wish for help, end here: with exit status 2 and 0.
    let arguments = Arguments::parse();
    let session = Session::new(&arguments.global);
    let outcome = run(&session, arguments.command);
    // What was written is safe already, of whatever class it was; closing tells whether the rest went well.
    let outcome = outcome.and(session.close());
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Runs one command.
fn run(session: &Session, command: Command) -> Outcome {
    match command {
        Command::Namespace(command) => namespace::run(session, command),
        Command::Key(command) => key::run(session, command),
        Command::Bulk(command) => bulk::run(session, command),
        Command::Export(arguments) => transfer::export(session, &arguments),
        Command::Import(arguments) => transfer::import(session, &arguments),
        Command::Stats(arguments) => stats::run(session, &arguments),
        Command::Compact => maintain::compact(session),
        Command::Verify(arguments) => maintain::verify(session, &arguments),
        Command::Salvage(arguments) => maintain::salvage(session, &arguments),
        Command::Checkpoint(arguments) => maintain::checkpoint(session, &arguments),
        Command::Inspect(arguments) => inspect::run(&arguments),
        Command::Shell if session.is_shell() => Err(Failure::usage("this is the shell already", "")),
        Command::Shell => shell::run(session),
        Command::Bench(arguments) => bench::run(&arguments),
        #[cfg(feature = "server")]
        Command::Serve(_) if session.is_shell() => Err(Failure::usage(
            "the shell has the store open",
            "leave it, then `embercask serve`",
        )),
        #[cfg(feature = "server")]
        Command::Serve(arguments) => {
            let settings = crate::server::Settings::of(&arguments)?;
            session.set_path_if_none(settings.store.as_deref());
            crate::server::run(settings, session.store_or_new()?)
        }
        #[cfg(feature = "server")]
        Command::Token { name } => generate::token(&name),
        Command::Completions { shell } => generate::completions(shell),
        Command::Man { directory } => generate::man(directory.as_deref()),
    }
}
