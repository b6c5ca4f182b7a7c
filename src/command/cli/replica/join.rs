//! `embercask replica join`: a store from the checkpoint of a running replica.
//!
//! The checkpoint is received into a directory inside that of the store, and moved out of it when
//! it is complete, the manifest last: a directory without one is no store. Nothing is needed beside
//! the directory itself, which may be the only one that this user can write to.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use embercask_replica::state;

use super::refused;
use crate::cli::remote;
use crate::cli::session::Session;
use crate::common::checkpoint_archive::END;
use crate::common::failure::{Failure, Outcome};
use crate::common::text::{bytes, count};

/// Where files are until all have arrived.
const ARRIVING: &str = "joining";
/// Makes a directory a store.
const MANIFEST: &str = "MANIFEST";
/// How many pieces of the archive may wait for the disk.
const PIECES_MAX: usize = 4;

pub(super) fn run(session: &Session, from: &str) -> Outcome {
    let directory = session.path()?;
    let client = session.client_maker(from)()?;
    let arriving = begin(&directory)?;
    let mut receiver = Receiver::start(arriving.clone());
    let received = remote::replica::checkpoint(&client, &mut receiver);
    let outcome = receiver.end();
    received?;
    let received = outcome?;
    publish(&arriving, &directory)?;
    let store = session.reading()?;
    let state = state::read(&store).map_err(refused)?;
    let state = state.ok_or_else(|| refused(state::StateError::NotAReplica))?;
    session.say(format_args!(
        "Received {} files, {}: a replica of the cluster {:032x}, at position {}. Start it with `embercask serve` and \
         the table [replica] of the others.",
        count(received.files),
        bytes(received.bytes),
        state.cluster,
        state.position
    ))
}

/// The directory for what arrives. That of the store must be absent or empty, but for what an
/// attempt has left that was stopped.
fn begin(directory: &Path) -> Outcome<PathBuf> {
    let failed = |error: io::Error| Failure::file("create a store in", directory.display(), &error);
    let arriving = directory.join(ARRIVING);
    fs::create_dir_all(directory).map_err(failed)?;
    for entry in fs::read_dir(directory).map_err(failed)? {
        if entry.map_err(failed)?.file_name() != ARRIVING {
            return Err(Failure::usage(
                format!("{} is not empty", directory.display()),
                "a replica is made in a directory that is absent or empty: move away what is there",
            ));
        }
    }
    if arriving.exists() {
        fs::remove_dir_all(&arriving).map_err(failed)?;
    }
    fs::create_dir(&arriving).map_err(failed)?;
    Ok(arriving)
}

/// Moves all files into the directory of the store.
fn publish(arriving: &Path, directory: &Path) -> Outcome {
    let failed = |error: io::Error| Failure::file("write", directory.display(), &error);
    let mut names = Vec::new();
    for entry in fs::read_dir(arriving).map_err(failed)? {
        names.push(entry.map_err(failed)?.file_name());
    }
    // The manifest comes last.
    names.sort_by_key(|name| name == MANIFEST);
    for name in names {
        if name == MANIFEST {
            sync(directory).map_err(failed)?;
        }
        fs::rename(arriving.join(&name), directory.join(&name)).map_err(failed)?;
    }
    fs::remove_dir(arriving).map_err(failed)?;
    sync(directory).map_err(failed)
}

#[cfg(unix)]
fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(not(unix))]
fn sync(_directory: &Path) -> io::Result<()> {
    Ok(())
}

/// What has arrived.
#[derive(Debug, Default)]
struct Received {
    files: u64,
    bytes: u64,
}

/// Writes an archive to files on a thread of its own, while it arrives.
pub(crate) struct Receiver {
    pieces: Option<SyncSender<Vec<u8>>>,
    thread: JoinHandle<Outcome<Received>>,
}

impl Receiver {
    fn start(directory: PathBuf) -> Receiver {
        let (pieces, arriving) = sync_channel(PIECES_MAX);
        let pieces_of = Arriving {
            pieces: arriving,
            piece: Vec::new(),
            read: 0,
        };
        Receiver {
            pieces: Some(pieces),
            thread: std::thread::spawn(move || unpack(pieces_of, &directory)),
        }
    }

    /// Takes the next bytes; false if the thread has failed.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> bool {
        let pieces = self.pieces.as_ref();
        pieces.is_some_and(|pieces| pieces.send(bytes.to_vec()).is_ok())
    }

    fn end(mut self) -> Outcome<Received> {
        self.pieces = None;
        match self.thread.join() {
            Ok(received) => received,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

/// Reads pieces one after the other.
struct Arriving {
    pieces: std::sync::mpsc::Receiver<Vec<u8>>,
    piece: Vec<u8>,
    read: usize,
}

impl Read for Arriving {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.read >= self.piece.len() {
            match self.pieces.recv() {
                Ok(piece) => (self.piece, self.read) = (piece, 0),
                Err(_) => return Ok(0),
            }
        }
        let mut left = self.piece.get(self.read..).unwrap_or_default();
        let count = left.read(into)?;
        self.read += count;
        Ok(count)
    }
}

fn unpack(archive: impl Read, directory: &Path) -> Outcome<Received> {
    let cut_off =
        |error: io::Error| Failure::system(format!("the checkpoint has not arrived whole: {error}"), "try again");
    let mut archive = tar::Archive::new(archive);
    let mut received = Received::default();
    for entry in archive.entries().map_err(cut_off)? {
        let mut entry = entry.map_err(cut_off)?;
        let name = entry.path().map_err(cut_off)?.into_owned();
        if name == Path::new(END) {
            return Ok(received);
        }
        let mut parts = name.components();
        let is_plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
        if !is_plain || !entry.header().entry_type().is_file() {
            let message = format!("{} is not a file of a checkpoint", name.display());
            return Err(Failure::system(message, "is this the address of a replica?"));
        }
        let path = directory.join(&name);
        let failed = |error: io::Error| Failure::file("write", path.display(), &error);
        let mut file = File::create_new(&path).map_err(failed)?;
        received.bytes += io::copy(&mut entry, &mut file).map_err(failed)?;
        received.files += 1;
        file.sync_all().map_err(failed)?;
    }
    Err(Failure::system(
        "the checkpoint has not arrived whole",
        "the server stopped, or the connection failed: try again",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for (name, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            // Not checked as `append_data` would.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            archive.append(&header, *content).unwrap();
        }
        archive.into_inner().unwrap()
    }

    fn unpacked(bytes: &[u8]) -> (tempfile::TempDir, Outcome<Received>) {
        let directory = tempfile::tempdir().unwrap();
        let received = unpack(bytes, directory.path());
        (directory, received)
    }

    #[test]
    fn an_archive_that_is_cut_off_anywhere_is_refused() {
        let whole = archive(&[("MANIFEST", b"abc"), ("1.segment", &[7; 2000]), (END, b"")]);
        let (directory, received) = unpacked(&whole);
        let received = received.unwrap();
        assert_eq!((received.files, received.bytes), (2, 2003));
        assert_eq!(fs::read(directory.path().join("1.segment")).unwrap(), [7; 2000]);
        // The header of the last file begins behind those of the others and their content.
        let end = 512 * (2 + 1 + 4);
        for length in (0..=end).step_by(128) {
            assert!(unpacked(&whole[..length]).1.is_err(), "{length}");
        }
    }

    #[test]
    fn no_file_is_written_outside_of_the_directory() {
        for name in ["../a", "/tmp/embercask-test-a", "a/b", ".", ".."] {
            let (directory, received) = unpacked(&archive(&[(name, b"x"), (END, b"")]));
            assert!(received.is_err(), "{name}");
            assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "{name}");
        }
    }

    #[test]
    fn a_store_appears_when_all_has_arrived_and_never_among_other_files() {
        let directory = tempfile::tempdir().unwrap();
        let store = directory.path().join("a/store");
        let arriving = begin(&store).unwrap();
        fs::write(arriving.join("left"), "").unwrap();
        let arriving = begin(&store).unwrap();
        for name in [MANIFEST, "1.segment"] {
            fs::write(arriving.join(name), name).unwrap();
        }
        publish(&arriving, &store).unwrap();
        let mut names: Vec<_> = fs::read_dir(&store)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["1.segment", MANIFEST]);
        assert!(begin(&store).is_err());
    }
}
