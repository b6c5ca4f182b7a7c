//! Completions and manual pages, generated from the arguments; and tokens.

use std::io::Write;
use std::path::Path;

use super::arguments;
use super::output::stdout;
use crate::common::failure::{Failure, Outcome};

pub(crate) fn completions(shell: clap_complete::Shell) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut arguments::command(), "embercask", &mut script);
    let mut out = stdout();
    out.write_all(&script)?;
    Ok(out.flush()?)
}

/// Shows all flags: a page has no text for those that the short help hides.
fn with_all_flags(command: clap::Command) -> clap::Command {
    let command = command.mut_args(|flag| flag.hide_short_help(false));
    command.mut_subcommands(with_all_flags)
}

pub(crate) fn man(directory: Option<&Path>) -> Outcome {
    let command = with_all_flags(arguments::command());
    if let Some(directory) = directory {
        return std::fs::create_dir_all(directory)
            .and_then(|()| clap_mangen::generate_to(command, directory))
            .map_err(|error| Failure::file("write the manual pages to", directory.display(), &error));
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    let mut out = stdout();
    out.write_all(&page)?;
    Ok(out.flush()?)
}

/// Prints a random token, and the lines of the configuration that accept it.
pub(crate) fn token(name: &str) -> Outcome {
    use base64::Engine;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;

    use crate::server::access::{digest, show_digest};

    let mut secret = [0; 32];
    getrandom::fill(&mut secret)
        .map_err(|error| Failure::file("ask", "the system for random bytes", &std::io::Error::from(error)))?;
    let token = BASE64_URL_SAFE_NO_PAD.encode(secret);
    let mut out = stdout();
    writeln!(out, "{token}\n\n[[tokens]]")?;
    writeln!(out, "name = {}", serde_json::Value::from(name))?;
    writeln!(out, "sha256 = \"{}\"", show_digest(&digest(token.as_bytes())))?;
    Ok(out.flush()?)
}
