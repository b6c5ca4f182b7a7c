//! The progress of an import, saved in a file next to the input.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crc32fast::Hasher;
use serde::{Deserialize, Serialize};

use crate::cli::arguments::{FileFormat, Import};
use crate::cli::destination::Destination;
use crate::cli::session::Session;
use crate::common::failure::{Failure, Outcome};
use crate::common::objects::Object;
use crate::planted::{Planted, planted};

/// A progress note: how much of which input was imported, and where to.
///
/// A note with unknown or missing members is refused: it is damaged, or written by another program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Done {
    /// The id of the store, which copies share, and its newest sequence, which is lower in an older
    /// copy.
    store: String,
    sequence: u64,
    /// The namespace for all keys, if the user named one.
    #[serde(deserialize_with = "Option::deserialize")]
    namespace: Option<String>,
    bulk: bool,
    if_absent: bool,
    /// Number of lines or pairs, from the first one, that are in the store.
    pub(super) items: u64,
    /// Checksum over them.
    pub(super) crc32: u32,
    /// How many of them belong to an export that has not ended, without its first line.
    #[serde(deserialize_with = "Option::deserialize")]
    pub(super) section: Option<u64>,
}

/// How much of the input has been read.
#[derive(Clone, Default)]
pub(super) struct Seen {
    /// Number of lines or pairs.
    pub(super) items: u64,
    /// Checksum over all of them.
    pub(super) crc: Hasher,
    /// Lines since the first line of an export, until its last line.
    pub(super) section: Option<u64>,
}

impl Seen {
    pub(super) fn crc32(&self) -> u32 {
        self.crc.clone().finalize()
    }
}

/// Saves and loads the progress note.
pub(super) struct Progress<'a> {
    session: &'a Session,
    arguments: &'a Import,
    file: Option<PathBuf>,
}

impl<'a> Progress<'a> {
    /// `is_file` if the input can be read again.
    pub(super) fn of(session: &'a Session, arguments: &'a Import, is_file: bool) -> Outcome<Progress<'a>> {
        let beside = || {
            let mut name = arguments.file.clone().into_os_string();
            name.push(".progress");
            is_file.then(|| PathBuf::from(name))
        };
        let file = arguments.progress_file.clone().or_else(beside);
        if arguments.resume && file.is_none() {
            return Err(Failure::usage(
                "the progress of an import is saved only for a regular file",
                "give --progress-file FILE from the first attempt on",
            ));
        }
        Ok(Progress {
            session,
            arguments,
            file,
        })
    }

    /// Whether `--resume` will find the note.
    pub(super) fn is_kept(&self) -> bool {
        self.file.is_some()
    }

    /// The progress of an earlier import, if this one resumes it. Otherwise removes its note, so
    /// that no later import resumes it.
    pub(super) fn done(&mut self, destination: &Destination) -> Outcome<Option<Done>> {
        let Some(file) = &self.file else { return Ok(None) };
        if !self.arguments.resume {
            return match std::fs::remove_file(file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => self.unusable("remove", &error).map(|()| None),
                _ => Ok(None),
            };
        }
        let read = match std::fs::read(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.session
                    .note("No progress of an earlier import was found; starting at the beginning.");
                return Ok(None);
            }
            read => read.map_err(|error| Failure::file("read", file.display(), &error))?,
        };
        let wrong = |what: String| Failure::usage(what, "import from the beginning, without --resume");
        let name = file.display();
        let Object::<Done>(done) = serde_json::from_slice(&read)
            .map_err(|error| wrong(format!("{name} is not a progress file of an import: {error}")))?;
        let now = self.place(destination);
        let options = |done: &Done| (done.store.clone(), done.namespace.clone(), done.bulk, done.if_absent);
        if options(&done) != options(&now) {
            return Err(wrong(format!(
                "{name} belongs to an import into another store or namespace, or with other options"
            )));
        }
        if done.sequence > now.sequence && !planted(Planted::ImportIntoOlderCopy) {
            return Err(wrong(format!(
                "{name} belongs to an import into a newer copy of this store"
            )));
        }
        Ok(Some(done))
    }

    /// A note for this import, with nothing done yet.
    fn place(&self, destination: &Destination) -> Done {
        let (store, sequence) = destination.identity();
        Done {
            store,
            sequence,
            namespace: self.arguments.namespace.clone(),
            bulk: self.arguments.format == FileFormat::Bulk,
            if_absent: self.arguments.if_absent,
            items: 0,
            crc32: 0,
            section: None,
        }
    }

    /// Saves the note. Everything it covers must be durable already.
    pub(super) fn note(&mut self, destination: &Destination, items: u64, crc32: u32, section: Option<u64>) -> Outcome {
        let Some(file) = &self.file else { return Ok(()) };
        let done = Done {
            items,
            crc32,
            section,
            ..self.place(destination)
        };
        match replace(file, &serde_json::to_vec(&done)?) {
            Ok(()) => Ok(()),
            Err(error) => self.unusable("write", &error),
        }
    }

    /// Removes the note of a complete import.
    pub(super) fn forget(&self) {
        if let Some(file) = &self.file {
            // If that fails, the next import with --resume finds nothing to do.
            let _ = std::fs::remove_file(file);
        }
    }

    /// An error if the user named the file. The default one may be in a directory that is not
    /// writable; then the import continues without.
    fn unusable(&mut self, action: &str, error: &io::Error) -> Outcome {
        let Some(file) = self.file.take() else { return Ok(()) };
        let failure = Failure::file(action, file.display(), error);
        if self.arguments.progress_file.is_some() {
            return Err(failure);
        }
        self.session.note(format_args!(
            "The progress of this import is not saved: cannot {action} {}: {error}",
            file.display()
        ));
        Ok(())
    }
}

/// Replaces a file atomically.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut next = path.as_os_str().to_owned();
    next.push(".next");
    let next = PathBuf::from(next);
    let written = File::create(&next).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_data()?;
        std::fs::rename(&next, path)
    });
    if written.is_err() {
        let _ = std::fs::remove_file(&next);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by the fuzz target `import_resume`: with a note that lacks `section`, a file that was
    /// cut off would pass for whole.
    #[test]
    fn a_note_with_a_member_more_or_less_is_none() {
        let is_note = |text: &str| serde_json::from_str::<Object<Done>>(text).is_ok();
        let good = r#"{"store":"1","sequence":2,"namespace":null,"bulk":false,"if_absent":false,"items":3,"crc32":4,"section":5}"#;
        assert!(is_note(good));
        for name in [
            "store",
            "sequence",
            "namespace",
            "bulk",
            "if_absent",
            "items",
            "crc32",
            "section",
        ] {
            assert!(!is_note(&good.replace(name, "another")), "{name}");
        }
        assert!(!is_note(&good.replace("5}", "5,\"more\":6}")));
    }
}
