//! `embercask shell`: commands at a prompt, on one open store.

mod completion;
mod history;

use std::ffi::OsString;
use std::io::{ErrorKind, IsTerminal};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use rustyline::Editor;
use rustyline::config::Configurer;
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;

use super::arguments::{Command, Help, Wrangler, with_short_help};
use super::session::Session;
use super::words;
use crate::common::failure::{Failure, Outcome, status};
use crate::common::text::escape;
use crate::planted::{Planted, planted};
use completion::Words;

/// A line: a command without the program's name.
#[derive(Parser)]
#[command(
    name = "embercask",
    about = "Commands at the prompt; those of `key` may be given without `key`",
    no_binary_name = true,
    disable_version_flag = true,
    disable_help_flag = true
)]
struct Line {
    #[command(flatten)]
    help: Help,
    #[command(flatten)]
    wrangler: Wrangler,
    #[command(subcommand)]
    word: Word,
}

/// The commands of a shell: those of the program, and its own.
#[derive(Subcommand)]
enum Word {
    #[command(flatten)]
    Command(Box<Command>),
    /// Use this namespace in all commands that name none; without a name, none
    Use {
        /// Name of the namespace
        name: Option<String>,
    },
    /// Clear the screen
    Clear,
    /// Leave the shell
    #[command(visible_alias = "quit")]
    Exit,
}

/// What follows a line.
enum Next {
    /// The next line.
    Line,
    /// The next line, on an empty screen.
    Clear,
    Exit,
}

pub(crate) fn run(outer: &Session) -> Outcome {
    let session = outer.of_shell()?;
    let is_terminal = std::io::stdin().is_terminal();
    let outcome = prompt(&session, is_terminal);
    outcome.and(session.close())
}

fn prompt(session: &Session, is_terminal: bool) -> Outcome {
    let failed = |error: ReadlineError| match error {
        ReadlineError::Io(error) if error.kind() == ErrorKind::InvalidData => Failure::usage(
            "a command is not text (UTF-8)",
            "write other bytes as escapes, with --key-format escaped and --value-format escaped",
        ),
        error => Failure::usage(format!("cannot read commands: {error}"), ""),
    };
    let mut editor = Editor::<Words<'_>, FileHistory>::new().map_err(failed)?;
    editor.set_helper(Some(Words { session }));
    // As in other shells, for lines that are not to be kept.
    editor.set_history_ignore_space(true);
    let history = history::file().filter(|_| is_terminal);
    if let Some(history) = &history {
        // There is no file the first time.
        let _ = editor.load_history(history);
        session.note("Type `help` for the commands, `exit` to leave; Tab completes.");
    }
    let outcome = loop {
        let shown = if is_terminal { prompt_of(session) } else { String::new() };
        let line = match editor.readline(&shown) {
            Ok(line) => line,
            // Ctrl-C discards the line, Ctrl-D leaves the shell.
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => break Ok(()),
            Err(error) => break Err(failed(error)),
        };
        let words = line.trim();
        if words.is_empty() || words.starts_with('#') {
            continue;
        }
        // A failure to keep the history must not end the shell.
        let _ = editor.add_history_entry(line.trim_end());
        match execute(session, words) {
            Ok(Next::Line) => {}
            Ok(Next::Clear) if is_terminal => editor.clear_screen().map_err(failed)?,
            Ok(Next::Clear) => {}
            Ok(Next::Exit) => break Ok(()),
            Err(Failure::BrokenPipe) => break Err(Failure::BrokenPipe),
            // A script ends at its first failure; a person carries on.
            Err(failure) if !is_terminal && !planted(Planted::GoOnAfterFailure) => break Err(failure),
            Err(failure) => {
                let _ = failure.report();
            }
        }
    };
    if let Some(history) = &history {
        history::keep(&mut editor, history);
    }
    outcome
}

/// The prompt, with the namespace in use.
fn prompt_of(session: &Session) -> String {
    match session.used() {
        Some(name) => format!("embercask:{}> ", escape(name.as_bytes())),
        None => "embercask> ".to_owned(),
    }
}

fn execute(session: &Session, line: &str) -> Outcome<Next> {
    let mut words = shlex::split(line).ok_or_else(|| Failure::usage("a quotation mark is not closed", ""))?;
    if let Some(first) = words.first_mut()
        && first == "?"
    {
        "help".clone_into(first);
    }
    let words = words.into_iter().map(OsString::from).collect();
    let matches = words::matches(with_short_help(Line::command()), words);
    match matches.and_then(|matches| Line::from_arg_matches(&matches)) {
        Ok(line) => {
            words::tell_ignored(session, &line.wrangler);
            match line.word {
                Word::Command(command) => super::run(session, *command).map(|()| Next::Line),
                Word::Use { name } => session.use_namespace(name).map(|()| Next::Line),
                Word::Clear => Ok(Next::Clear),
                Word::Exit => Ok(Next::Exit),
            }
        }
        Err(error) if error.use_stderr() => {
            // The error includes usage and a hint, in the terminal's style.
            let _ = error.print();
            Err(Failure::Silent(status::USAGE))
        }
        Err(help) => Ok(help.print().map(|()| Next::Line)?),
    }
}
