//! The command line. `arguments` declares commands and flags, `session` opens the store, and each
//! other module runs one group of commands.

pub(crate) mod arguments;
mod bench;
mod bulk;
mod destination;
mod entry;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod generate;
mod inspect;
mod key;
mod limits;
mod maintain;
mod namespace;
pub(crate) mod output;
mod pair;
mod printed_values;
mod random;
mod remarks;
mod remote;
mod replica;
mod session;
mod shell;
pub(crate) mod stats;
mod transfer;
mod words;
mod writer;

use std::process::ExitCode;

use arguments::{Command, Replica};
use session::Session;

use crate::common::failure::{Failure, Outcome};
use crate::common::interrupt;
use crate::server;

/// Runs the command given by the arguments.
pub fn main() -> ExitCode {
    interrupt::install();
    // Exits here for wrong arguments (status 2) and for help (status 0).
    let mut arguments = words::parse(std::env::args_os().collect()).unwrap_or_else(|error| error.exit());
    if matches!(arguments.command, Command::Serve(_)) {
        // `serve` has a flag of this name, for the tokens that it takes.
        arguments.global.remote.token_file = None;
    }
    // These name servers themselves, and use the flags of --url for them.
    let names_servers = matches!(
        arguments.command,
        Command::Replica(Replica::Join(_) | Replica::Audit(_))
    );
    if !names_servers && let Err(failure) = arguments.global.remote.choose(&arguments.wrangler) {
        return failure.report();
    }
    let session = Session::new(&arguments.global);
    words::tell_ignored(&session, &arguments.wrangler);
    let outcome = run(&session, arguments.command);
    // Acknowledged writes are as durable as their class promises already; closing reports errors of
    // everything else.
    let outcome = outcome.and(session.close());
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Runs one command.
fn run(session: &Session, command: Command) -> Outcome {
    if let Some(client) = session.server_for(&command)? {
        return remote::run(session, &client, command);
    }
    match command {
        Command::Namespace(command) => namespace::run(session, command),
        Command::Key(command) | Command::Short(command) => key::run(session, command),
        Command::Bulk(command) => bulk::run(session, command),
        Command::Export(arguments) => transfer::export(session, &arguments),
        Command::Import(arguments) => transfer::import(session, &arguments),
        Command::Stats(arguments) => stats::run(session, &arguments),
        Command::Compact => maintain::compact(session),
        Command::Verify(arguments) => maintain::verify(session, &arguments),
        Command::Salvage(arguments) => maintain::salvage(session, &arguments),
        Command::Checkpoint(arguments) => maintain::checkpoint(session, &arguments),
        Command::Inspect(arguments) => inspect::run(&arguments),
        Command::Shell if session.is_shell() => Err(Failure::usage("the shell is already running", "")),
        Command::Shell => shell::run(session),
        Command::Bench(arguments) => bench::run(session, &arguments),
        Command::Serve(_) if session.is_shell() => Err(Failure::usage(
            "the shell has the store open",
            "leave the shell, then run `embercask serve`",
        )),
        Command::Serve(arguments) => {
            let settings = server::Settings::of(&arguments)?;
            session.set_path_if_none(settings.store.as_deref());
            server::prepare(&settings)?;
            let clock = settings.log_clock();
            let store = session.store_to_serve(settings.creates(), |chosen| {
                settings.store_options(chosen, clock.as_ref())
            })?;
            server::run(settings, *arguments, store, clock)
        }
        Command::Replica(command) => replica::run(session, command),
        Command::Token { name } => generate::token(&name),
        Command::Completions { shell } => generate::completions(shell),
        Command::Man { directory } => generate::man(directory.as_deref()),
    }
}
