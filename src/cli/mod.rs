//! The command line. `arguments` says what can be said, `session` opens the store, and each other module does one group
//! of commands.

mod arguments;
mod bench;
mod bulk;
mod failure;
mod generate;
mod inspect;
mod interrupt;
mod key;
mod maintain;
mod namespace;
mod output;
mod random;
mod session;
mod shell;
mod stats;
mod text;
mod transfer;
mod writer;

use std::process::ExitCode;

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
        Command::Completions { shell } => generate::completions(shell),
        Command::Man { directory } => generate::man(directory.as_deref()),
    }
}
