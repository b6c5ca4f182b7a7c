//! Completions and manual pages, made from the arguments.

use std::io::Write;
use std::path::Path;

use clap::CommandFactory;

use super::arguments::Arguments;
use super::failure::{Failure, Outcome};
use super::output::stdout;

pub(crate) fn completions(shell: clap_complete::Shell) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "embercask", &mut script);
    let mut out = stdout();
    out.write_all(&script)?;
    Ok(out.flush()?)
}

pub(crate) fn man(directory: Option<&Path>) -> Outcome {
    let command = Arguments::command();
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
