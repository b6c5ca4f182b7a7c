//! Where miniflare keeps the namespaces of Workers KV, and what they are called.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::database;
use crate::common::failure::{Failure, Outcome};

/// The directory of the databases. It is also what their names are hashed with.
const DATABASES: &str = "miniflare-KVNamespaceObject";
/// A database in the directory of its namespace, as miniflare had it before.
const EARLIER_DATABASE: &str = "db.sqlite";

/// The directory with the state of Workers KV.
pub(super) struct State {
    pub(super) directory: PathBuf,
}

/// A namespace of the state.
#[derive(Debug)]
pub(super) struct Found {
    /// What the configuration of the worker calls its id.
    pub(super) id: String,
    pub(super) database: PathBuf,
    /// The directory of its values.
    pub(super) blobs: PathBuf,
}

impl State {
    /// Finds the state below a directory: that of a project, `.wrangler/state`, what
    /// `--persist-to` names, or the directory itself.
    pub(super) fn find(given: &Path) -> Outcome<State> {
        let fail = |error| Failure::file("read", given.display(), &error);
        if !std::fs::metadata(given).map_err(fail)?.is_dir() {
            return Err(Failure::usage(
                format!("{} is not a directory", given.display()),
                "give the directory of the project of `wrangler dev`",
            ));
        }
        let versions = ["v3", "v4", "v5"].map(|version| given.join(version).join("kv"));
        let of_state = ["v3", "v4", "v5"].map(|version| given.join("state").join(version).join("kv"));
        let of_project = ["v3", "v4", "v5"].map(|version| given.join(".wrangler/state").join(version).join("kv"));
        let mut candidates = vec![given.to_owned(), given.join("kv")];
        candidates.extend(versions.into_iter().rev());
        candidates.extend(of_state.into_iter().rev());
        candidates.extend(of_project.into_iter().rev());
        let directory = candidates.into_iter().find(|directory| is_state(directory));
        directory.map(|directory| State { directory }).ok_or_else(|| {
            Failure::usage(
                format!("{} has no local state of Workers KV", given.display()),
                "give the directory of the project of `wrangler dev`, its .wrangler/state, or what --persist-to names",
            )
        })
    }

    /// All namespaces that have keys. `ids` are those that may be meant.
    pub(super) fn namespaces(&self, ids: &[String]) -> Outcome<Vec<Found>> {
        let mut found = Vec::new();
        let directories = directories_in(&self.directory)?;
        let mut known: Vec<String> = directories.iter().filter_map(|path| name_of(path)).collect();
        known.extend(ids.iter().cloned());
        for database in databases_in(&self.directory.join(DATABASES))? {
            let Some(first_blob) = database::first_blob(&database)? else {
                // It has no keys.
                continue;
            };
            let hash = database.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            let by_hash = known.iter().find(|id| object_id(DATABASES, id) == hash).cloned();
            let of_id = directories
                .iter()
                .find(|path| name_of(path) == by_hash && by_hash.is_some());
            // No two namespaces have a file of the same name: miniflare makes them up at random.
            let has_blob = |path: &&PathBuf| database::blob_in(&blobs_of(path), &first_blob).is_some();
            let holder = of_id.or_else(|| directories.iter().find(has_blob));
            let id = by_hash.or_else(|| name_of(holder?)).ok_or_else(|| {
                Failure::usage(
                    format!("the namespace of {} is not known", database.display()),
                    "name its id, as in the configuration of the worker, with --name ID=NAME",
                )
            })?;
            let directory = holder.cloned().unwrap_or_else(|| self.directory.join(&id));
            found.push(Found {
                id,
                database,
                blobs: blobs_of(&directory),
            });
        }
        for directory in directories {
            let database = directory.join(EARLIER_DATABASE);
            let id = name_of(&directory).filter(|id| !found.iter().any(|other| other.id == *id));
            let has_keys = database.is_file() && database::first_blob(&database)?.is_some();
            if let Some(id) = id.filter(|_| has_keys) {
                let blobs = blobs_of(&directory);
                found.push(Found { id, database, blobs });
            }
        }
        found.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(found)
    }
}

/// Whether the directory is one of namespaces.
fn is_state(directory: &Path) -> bool {
    if directory.join(DATABASES).is_dir() {
        return true;
    }
    let is_namespace = |path: &PathBuf| path.join(EARLIER_DATABASE).is_file() && blobs_of(path).is_dir();
    directories_in(directory).is_ok_and(|directories| directories.iter().any(is_namespace))
}

fn blobs_of(directory: &Path) -> PathBuf {
    directory.join("blobs")
}

fn name_of(directory: &Path) -> Option<String> {
    Some(directory.file_name()?.to_str()?.to_owned())
}

/// The directories of the namespaces.
fn directories_in(directory: &Path) -> Outcome<Vec<PathBuf>> {
    let is_namespace = |path: &PathBuf| path.is_dir() && !path.ends_with(DATABASES);
    Ok(entries_of(directory)?.into_iter().filter(is_namespace).collect())
}

/// The databases of namespaces, which have hashes for names.
fn databases_in(directory: &Path) -> Outcome<Vec<PathBuf>> {
    if !directory.is_dir() {
        return Ok(Vec::new());
    }
    let is_database = |path: &PathBuf| {
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let is_hash = stem.len() == 64 && stem.bytes().all(|digit| digit.is_ascii_hexdigit());
        is_hash && path.extension().is_some_and(|suffix| suffix == "sqlite")
    };
    Ok(entries_of(directory)?.into_iter().filter(is_database).collect())
}

fn entries_of(directory: &Path) -> Outcome<Vec<PathBuf>> {
    let fail = |error| Failure::file("read", directory.display(), &error);
    let entries = std::fs::read_dir(directory).map_err(fail)?;
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.map_err(fail)?.path());
    }
    paths.sort();
    Ok(paths)
}

/// The id that workerd derives from the name of an object, in hexadecimal: half of an HMAC of the
/// name, and half of one of that.
fn object_id(unique_key: &str, name: &str) -> String {
    let key: [u8; 32] = Sha256::digest(unique_key).into();
    let half = |message: &[u8]| {
        let mut half = hmac(&key, message).to_vec();
        half.truncate(16);
        half
    };
    let of_name = half(name.as_bytes());
    let of_that = half(&of_name);
    of_name
        .iter()
        .chain(&of_that)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// HMAC-SHA-256 (RFC 2104) with a key that is shorter than a block.
fn hmac(key: &[u8; 32], message: &[u8]) -> [u8; 32] {
    let padded = |pad: u8| {
        let mut block = [pad; 64];
        block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
        block
    };
    let inner = Sha256::new()
        .chain_update(padded(0x36))
        .chain_update(message)
        .finalize();
    let outer = Sha256::new().chain_update(padded(0x5c)).chain_update(inner);
    outer.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed by Python's `hmac`, as miniflare's documentation of the names describes.
    #[test]
    fn databases_are_named_by_a_hash_of_the_id() {
        for (id, expected) in [
            (
                "SESSIONS",
                "200da9f9c9864379551f5a12cefac569fa4a3ac61f1f4115c52572941e3a102a",
            ),
            (
                "4501846b534b2d4a5d8f47f790fd834a",
                "599fcdb45e2e242590d93e1430f47d9bf5c49df4494ad622b24467f976fd9c5e",
            ),
        ] {
            assert_eq!(object_id(DATABASES, id), expected, "{id}");
        }
    }
}
