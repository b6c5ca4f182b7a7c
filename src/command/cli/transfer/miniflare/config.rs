//! The names of namespaces: from the user, and from the configuration of the worker.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::state::{Found, State};
use crate::cli::session::Session;
use crate::common::failure::{Failure, Outcome};
use crate::common::text::quoted;

/// The files of a worker's configuration; wrangler reads the first one that is there.
const FILES: [&str; 3] = ["wrangler.json", "wrangler.jsonc", "wrangler.toml"];

/// Names of namespaces by their ids.
pub(super) struct Names {
    by_id: BTreeMap<String, String>,
    /// Those given on the command line.
    given: Vec<String>,
}

#[derive(Default, Deserialize)]
struct Config {
    #[serde(default)]
    kv_namespaces: Vec<Binding>,
    #[serde(default)]
    env: BTreeMap<String, Environment>,
}

#[derive(Default, Deserialize)]
struct Environment {
    #[serde(default)]
    kv_namespaces: Vec<Binding>,
}

#[derive(Deserialize)]
struct Binding {
    binding: String,
    id: Option<String>,
    preview_id: Option<String>,
}

impl Names {
    /// The bindings of the project's configuration, if it is found.
    pub(super) fn of_project(session: &Session, state: &State, given: &Path) -> Names {
        let mut names = Names {
            by_id: BTreeMap::new(),
            given: Vec::new(),
        };
        let Some(file) = config_file(state, given) else {
            return names;
        };
        match read(&file) {
            Ok(config) => names.add(config),
            Err(why) => session.note(format_args!(
                "note: {} cannot be read, so namespaces are called by their ids: {why}",
                file.display()
            )),
        }
        names
    }

    fn add(&mut self, config: Config) {
        let Config { kv_namespaces, env } = config;
        let of_environments = env.into_values().flat_map(|environment| environment.kv_namespaces);
        for Binding {
            binding,
            id,
            preview_id,
        } in kv_namespaces.into_iter().chain(of_environments)
        {
            // Locally, a binding without an id is its own.
            for id in [id, preview_id, Some(binding.clone())].into_iter().flatten() {
                self.by_id.entry(id).or_insert_with(|| binding.clone());
            }
        }
    }

    /// A name of the command line: `ID=NAME`.
    pub(super) fn set(&mut self, pair: &str) -> Outcome {
        let (id, name) = pair
            .split_once('=')
            .filter(|(id, name)| !id.is_empty() && !name.is_empty())
            .ok_or_else(|| {
                Failure::usage(
                    format!("{} is not ID=NAME", quoted(pair.as_bytes())),
                    "ID is what the configuration of the worker calls the id of the namespace",
                )
            })?;
        self.by_id.insert(id.to_owned(), name.to_owned());
        self.given.push(id.to_owned());
        Ok(())
    }

    /// Checks that the names of the command line are of namespaces that were found.
    pub(super) fn check_used(&self, found: &[Found]) -> Outcome {
        let is_found = |id: &&String| found.iter().any(|namespace| namespace.id == **id);
        match self.given.iter().find(|id| !is_found(id)) {
            None => Ok(()),
            Some(id) => {
                let ids: Vec<_> = found.iter().map(|namespace| quoted(namespace.id.as_bytes())).collect();
                Err(Failure::usage(
                    format!("no namespace with keys has the id {}", quoted(id.as_bytes())),
                    format!("these have keys: {}", ids.join(", ")),
                ))
            }
        }
    }

    pub(super) fn ids(&self) -> Vec<String> {
        self.by_id.keys().cloned().collect()
    }

    /// The name of a namespace; its id if it has no other.
    pub(super) fn name_of(&self, id: &str) -> String {
        self.by_id.get(id).map_or_else(|| id.to_owned(), Clone::clone)
    }
}

/// The configuration beside `.wrangler`, or in the given directory.
fn config_file(state: &State, given: &Path) -> Option<PathBuf> {
    let state = std::fs::canonicalize(&state.directory).ok()?;
    let wrangler = state.ancestors().find(|path| path.ends_with(".wrangler"));
    let directories = [Some(given), wrangler.and_then(Path::parent)];
    let files = directories
        .into_iter()
        .flatten()
        .flat_map(|directory| FILES.map(|file| directory.join(file)));
    files.into_iter().find(|file| file.is_file())
}

fn read(file: &Path) -> Result<Config, String> {
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    if file.extension().is_some_and(|suffix| suffix == "toml") {
        return toml::from_str(text).map_err(|error| error.message().to_owned());
    }
    serde_json::from_str(&without_comments(text)).map_err(|error| error.to_string())
}

/// JSON with comments and with commas after last items, as editors write it, as plain JSON.
fn without_comments(text: &str) -> String {
    let mut json = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.get(2..)
                .and_then(|inside| inside.find("*/"))
                .map_or(rest.len(), |end| end + 4)
        } else if character == '"' {
            let length = string_length(rest);
            json.push_str(rest.get(..length).unwrap_or_default());
            length
        } else {
            if matches!(character, '}' | ']') && json.trim_end().ends_with(',') {
                json.truncate(json.trim_end().len() - 1);
            }
            json.push(character);
            character.len_utf8()
        };
        rest = rest.get(length..).unwrap_or_default();
    }
    json
}

/// The length of the JSON string with which a text begins.
fn string_length(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bindings_are_read_in_each_format_and_from_each_environment() {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in [
            (
                "wrangler.toml",
                "[[kv_namespaces]]\nbinding = \"A\"\nid = \"1\"\n\
                 [[env.live.kv_namespaces]]\nbinding = \"B\"\nid = \"2\"\n",
            ),
            (
                "wrangler.json",
                r#"{"kv_namespaces": [{"binding": "A", "id": "1"}], "env": {"live": {"kv_namespaces": [{"binding": "B", "id": "2"}]}}}"#,
            ),
        ] {
            let file = directory.path().join(name);
            std::fs::write(&file, text).unwrap();
            let mut names = Names {
                by_id: BTreeMap::new(),
                given: Vec::new(),
            };
            names.add(read(&file).unwrap());
            let found = ["1", "2", "A", "3"].map(|id| names.name_of(id));
            assert_eq!(found, ["A", "B", "A", "3"], "{name}");
        }
    }

    #[test]
    fn comments_and_last_commas_are_left_out() {
        let text = "{ // a comment, \"quoted\"\n\"a\": [1, 2, /* ] */ ], \"b\": \"// \\\" , ]\",\n}//";
        let json: serde_json::Value = serde_json::from_str(&without_comments(text)).unwrap();
        assert_eq!(json, serde_json::json!({ "a": [1, 2], "b": "// \" , ]" }));
        for odd in ["/*", "/*/", "\"", "\"\\", "/", "é//é", ",]"] {
            without_comments(odd);
        }
    }
}
