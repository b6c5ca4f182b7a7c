//! What Tab offers in the shell.

use clap::CommandFactory;
use rustyline::completion::{Completer, Pair};
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use rustyline::{Context, Helper};

use super::Line;
use crate::cli::session::Session;
use crate::common::reserved;
use crate::common::text::is_deceptive;

/// Completes commands, flags and names of namespaces.
pub(super) struct Words<'a> {
    pub(super) session: &'a Session,
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
            || matches!(done, ["namespace" | "ns", "rename" | "delete" | "rm" | "del"] | ["use"]);
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
        let names = reserved::shown(infos).into_iter().map(|info| info.name);
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
            option: Vec::new(),
            store: Some(directory.path().join("store")),
            remote: Default::default(),
            quiet: true,
            wait: None,
        });
        let words = Words { session: &session };
        let of = |done: &[&str], begun: &str| words.candidates(done, begun);
        assert!(of(&[], "").contains(&"namespace".to_owned()));
        assert_eq!(of(&["key"], "")[..4], ["put", "get", "delete", "list"]);
        assert!(of(&[], "").contains(&"use".to_owned()));
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
            &["use"],
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
