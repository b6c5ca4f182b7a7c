//! `embercask shell`: commands at a prompt, on one open store.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;

use clap::{CommandFactory, FromArgMatches, Parser};
use rustyline::completion::{Completer, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::Validator;
use rustyline::{Context, Editor, Helper};

use super::arguments::{Command, Help, Wrangler, with_short_forms};
use super::session::Session;
use super::words;
use crate::common::failure::{Failure, Outcome};
use crate::common::text::is_deceptive;
use crate::planted::{Planted, planted};

/// A line: a command without the program's name.
#[derive(Parser)]
#[command(
    name = "embercask",
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
    command: Command,
}

pub(crate) fn run(outer: &Session) -> Outcome {
    let session = outer.of_shell()?;
    let is_terminal = std::io::stdin().is_terminal();
    let outcome = prompt(&session, is_terminal);
    outcome.and(session.close())
}

fn prompt(session: &Session, is_terminal: bool) -> Outcome {
    let failed = |error: ReadlineError| Failure::usage(format!("cannot read from the terminal: {error}"), "");
    let mut editor = Editor::<Words<'_>, FileHistory>::new().map_err(failed)?;
    editor.set_helper(Some(Words { session }));
    let history = history_file().filter(|_| is_terminal);
    if let Some(history) = &history {
        // There is no file the first time.
        let _ = editor.load_history(history);
        session.note("Type `help` for the commands, `exit` to leave; Tab completes.");
    }
    let outcome = loop {
        let line = match editor.readline(if is_terminal { "embercask> " } else { "" }) {
            Ok(line) => line,
            // Ctrl-C discards the line, Ctrl-D leaves the shell.
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => break Ok(()),
            Err(error) => break Err(failed(error)),
        };
        let line = line.trim();
        if matches!(line, "exit" | "quit") {
            break Ok(());
        }
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        // A failure to keep the history must not end the shell.
        let _ = editor.add_history_entry(line);
        match execute(session, line) {
            Ok(()) => {}
            Err(Failure::BrokenPipe) => break Err(Failure::BrokenPipe),
            // A script ends at its first failure; a person carries on.
            Err(failure) if !is_terminal && !planted(Planted::GoOnAfterFailure) => break Err(failure),
            Err(failure) => {
                let _ = failure.report();
            }
        }
    };
    if let Some(history) = &history {
        let _ = history.parent().map(std::fs::create_dir_all);
        // Appends, since other shells may have written to it meanwhile.
        let _ = editor.append_history(history);
    }
    outcome
}

fn execute(session: &Session, line: &str) -> Outcome {
    let words = shlex::split(line).ok_or_else(|| Failure::usage("a quotation mark is not closed", ""))?;
    let words = words.into_iter().map(OsString::from).collect();
    let matches = words::matches(with_short_forms(Line::command()), words);
    match matches.and_then(|matches| Line::from_arg_matches(&matches)) {
        Ok(line) => {
            words::tell_ignored(session, &line.wrangler);
            super::run(session, line.command)
        }
        Err(error) if error.use_stderr() => {
            // The error includes usage and a hint, in the terminal's style.
            let _ = error.print();
            Err(Failure::Silent(crate::common::failure::status::USAGE))
        }
        Err(help) => Ok(help.print()?),
    }
}

/// The history file, in the state directory of the XDG Base Directory Specification.
fn history_file() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let state = state.filter(|state| state.is_absolute());
    let state = state.or_else(|| Some(std::env::home_dir()?.join(".local/state")))?;
    Some(state.join("embercask/history"))
}

/// Completes commands, flags and names of namespaces.
struct Words<'a> {
    session: &'a Session,
}

impl Helper for Words<'_> {}
impl Highlighter for Words<'_> {}
impl Validator for Words<'_> {}

impl Hinter for Words<'_> {
    type Hint = String;
}

impl Completer for Words<'_> {
    type Candidate = Pair;

    fn complete(&self, line: &str, position: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let before = line.get(..position).unwrap_or(line);
        let start = before.rfind(char::is_whitespace).map_or(0, |space| space + 1);
        let (done, begun) = before.split_at(start);
        let done: Vec<&str> = done.split_whitespace().collect();
        let pairs = self
            .candidates(&done, begun)
            .into_iter()
            .filter(|candidate| candidate.starts_with(begun))
            .map(|candidate| Pair {
                replacement: format!("{candidate} "),
                display: candidate,
            })
            .collect();
        Ok((start, pairs))
    }
}

impl Words<'_> {
    /// What may follow these words.
    fn candidates(&self, done: &[&str], begun: &str) -> Vec<String> {
        let root = Line::command();
        let mut command = &root;
        for word in done {
            command = command.find_subcommand(word).unwrap_or(command);
        }
        let names_one = matches!(done.last(), Some(&("-n" | "--namespace" | "--binding")))
            || matches!(done, ["namespace" | "ns", "rename" | "delete"]);
        if names_one && !begun.starts_with('-') {
            return self.namespaces();
        }
        if begun.starts_with('-') {
            let flags = command.get_arguments().filter_map(|argument| argument.get_long());
            return flags.map(|flag| format!("--{flag}")).collect();
        }
        command
            .get_subcommands()
            .map(|command| command.get_name().to_owned())
            .collect()
    }

    fn namespaces(&self) -> Vec<String> {
        let store = self.session.opened();
        let infos = store.and_then(|store| store.namespaces().ok()).unwrap_or_default();
        // Quoted where a line needs it. A name that cannot be shown safely is not offered.
        let names = infos.into_iter().map(|info| info.name);
        names
            .filter(|name| !name.contains(is_deceptive))
            .filter_map(|name| Some(shlex::try_quote(&name).ok()?.into_owned()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::arguments::Global;

    #[test]
    fn words_are_completed() {
        let directory = tempfile::tempdir().unwrap();
        let session = Session::new(&Global {
            store: Some(directory.path().join("store")),
            quiet: true,
            wait: None,
        });
        let words = Words { session: &session };
        let of = |done: &[&str], begun: &str| words.candidates(done, begun);
        assert!(of(&[], "").contains(&"namespace".to_owned()));
        assert_eq!(of(&["key"], ""), ["put", "get", "delete", "list"]);
        assert!(of(&["key", "list"], "--").contains(&"--prefix".to_owned()));
        // Completion does not open the store; once it is open, its namespaces are offered.
        assert_eq!(of(&["key", "get", "-n"], ""), Vec::<String>::new());
        let store = session.store_or_new().unwrap();
        for name in ["SESSIONS", "two words", "a\u{202e}b"] {
            store.namespace(name).unwrap();
        }
        let mut named = of(&["key", "get", "-n"], "");
        named.sort();
        // Quoted where a line needs it; a name that a terminal would show as something else is not
        // offered.
        assert_eq!(named, ["'two words'", "SESSIONS"]);
        for done in [
            &["bulk", "put", "--namespace"][..],
            &["export", "--binding"],
            &["namespace", "rename"],
            &["ns", "delete"],
        ] {
            assert_eq!(of(done, "S").len(), 2, "{done:?}");
        }
        assert!(of(&["key", "get", "-n"], "--").contains(&"--json".to_owned()));
        assert_eq!(of(&["key", "get"], ""), Vec::<String>::new());
        // Only candidates that begin with the word under the cursor; they replace it.
        let history = rustyline::history::DefaultHistory::new();
        let (start, pairs) = words.complete("key get -n SES", 14, &Context::new(&history)).unwrap();
        let replacements: Vec<&str> = pairs.iter().map(|pair| pair.replacement.as_str()).collect();
        assert_eq!((start, &replacements[..]), (11, &["SESSIONS "][..]));
    }
}
