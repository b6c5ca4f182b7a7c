//! From words to arguments: help where a command is missing, and suggestions for unknown ones.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgMatches, Command, Error, FromArgMatches};

use super::arguments::{Arguments, Wrangler, command};
use super::session::Session;

/// The arguments of the program.
pub(crate) fn parse(words: Vec<OsString>) -> Result<Arguments, Error> {
    let matches = matches(command(), words)?;
    let mut arguments = Arguments::from_arg_matches(&matches)?;
    arguments.global.remote.note_sources(&matches);
    Ok(arguments)
}

/// The matches of these words. Where a command is missing the help is shown, as with `--help`.
pub(crate) fn matches(mut command: Command, mut words: Vec<OsString>) -> Result<ArgMatches, Error> {
    command
        .try_get_matches_from_mut(words.clone())
        .or_else(|error| match error.kind() {
            ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                words.push("--help".into());
                command.try_get_matches_from_mut(words)
            }
            ErrorKind::InvalidSubcommand => Err(with_suggestions(error, &command, &words)),
            _ => Err(error),
        })
}

/// Says that flags of wrangler change nothing.
pub(crate) fn tell_ignored(session: &Session, flags: &Wrangler) {
    for (flag, is_given) in [("--local", flags.local), ("--remote", flags.remote)] {
        // On a server, `--remote` says what happens.
        if is_given && !session.is_remote() {
            session.note(format_args!(
                "{flag} is ignored: the command works on the store that --store names."
            ));
        }
    }
}

/// Adds commands that differ in a letter or two, if clap, which compares whole words, has none.
fn with_suggestions(mut error: Error, root: &Command, words: &[OsString]) -> Error {
    let Some(ContextValue::String(unknown)) = error.get(ContextKind::InvalidSubcommand) else {
        return error;
    };
    if error.get(ContextKind::SuggestedSubcommand).is_some() {
        return error;
    }
    let before = words.iter().take_while(|word| **word != **unknown);
    let group = before.fold(root, |group, word| group.find_subcommand(word).unwrap_or(group));
    let similar = similar(unknown, group);
    if !similar.is_empty() {
        error.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(similar));
    }
    error
}

/// The most similar commands of a group.
fn similar(unknown: &str, group: &Command) -> Vec<String> {
    let furthest = if unknown.chars().count() < 5 { 1 } else { 2 };
    let commands = group.get_subcommands();
    let names = commands.flat_map(|command| std::iter::once(command.get_name()).chain(command.get_all_aliases()));
    let mut near: Vec<(usize, &str)> = names
        .map(|name| (strsim::osa_distance(unknown, name), name))
        .filter(|(distance, _)| *distance <= furthest)
        .collect();
    near.sort_unstable();
    let nearest = near.first().map(|(distance, _)| *distance);
    near.into_iter()
        .filter(|(distance, _)| Some(*distance) == nearest)
        .map(|(_, name)| name.to_owned())
        .collect()
}
