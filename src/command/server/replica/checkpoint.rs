//! A checkpoint of the store on its way to a new replica: a tar archive, made while it is sent.
//!
//! The archive ends with a file [`END`], without which it was cut off: an error while it is sent
//! can be told in no other way.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc::{Sender, channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::common::checkpoint_archive::END;
use crate::server::blocking::blocking;
use crate::server::error::ApiError;
use crate::server::response::{ApiResponse, pieces_response};
use crate::server::shared::Shared;

/// The checkpoint, in the directory of the store: so that its files can be links, and because
/// elsewhere the server may not write.
const DIRECTORY: &str = "replica-checkpoint";
/// What is sent at once, and how many such pieces may wait for the client.
const PIECE_BYTES: usize = 256 << 10;
const PIECES_MAX: usize = 4;

/// At most one checkpoint is sent at a time.
pub(super) struct Sending(Arc<Semaphore>);

impl Default for Sending {
    fn default() -> Sending {
        Sending(Arc::new(Semaphore::new(1)))
    }
}

/// A checkpoint that is removed when it is dropped.
struct Made {
    directory: PathBuf,
    _only: OwnedSemaphorePermit,
}

impl Drop for Made {
    fn drop(&mut self) {
        remove(&self.directory);
    }
}

/// Removes a checkpoint, and one that was never completed; of another time too, since a server may
/// have been killed while it sent one.
fn remove(directory: &Path) {
    for path in [directory.to_owned(), directory.with_extension("partial")] {
        match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "a checkpoint was not removed");
            }
            _ => {}
        }
    }
}

/// Removes what a server that was killed has left behind.
pub(super) fn remove_left(store: &Path) {
    remove(&store.join(DIRECTORY));
}

/// Makes a checkpoint, and answers with it.
pub(in crate::server) async fn send(shared: &Arc<Shared>) -> Result<ApiResponse, ApiError> {
    let Some(replica) = &shared.replica else {
        return Err(super::not_a_replica());
    };
    let busy = |_| ApiError::new(503, 10001, "another node is being sent a checkpoint; try again later");
    let only = Arc::clone(&replica.sending.0).try_acquire_owned().map_err(busy)?;
    let (asked, directory) = (Arc::clone(shared), shared.store.directory().join(DIRECTORY));
    let made = blocking(move || {
        let made = Made { directory, _only: only };
        remove(&made.directory);
        asked.store.checkpoint_with(&made.directory, |_| !asked.is_closing())?;
        Ok(made)
    });
    let made = made.await?;
    let (sender, pieces) = channel(PIECES_MAX);
    let sending = Arc::clone(shared);
    // Ends when the client is gone: the other end of the channel is dropped with the response.
    tokio::task::spawn_blocking(move || {
        if let Err(error) = archive(&made.directory, Pieces::new(sender, &sending)) {
            tracing::warn!(%error, "a checkpoint was not sent to its end");
        }
    });
    Ok(pieces_response("application/x-tar", pieces))
}

fn archive(directory: &Path, pieces: Pieces<'_>) -> io::Result<()> {
    let mut archive = tar::Builder::new(pieces);
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        archive.append_path_with_name(entry.path(), entry.file_name())?;
    }
    let mut header = tar::Header::new_gnu();
    header.set_size(0);
    header.set_mode(0o600);
    archive.append_data(&mut header, END, io::empty())?;
    archive.into_inner()?.flush()
}

/// Writes to a response.
struct Pieces<'a> {
    sender: Sender<Bytes>,
    shared: &'a Shared,
    piece: BytesMut,
}

impl Pieces<'_> {
    fn new(sender: Sender<Bytes>, shared: &Shared) -> Pieces<'_> {
        Pieces {
            sender,
            shared,
            piece: BytesMut::with_capacity(PIECE_BYTES),
        }
    }
}

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = PIECE_BYTES.saturating_sub(self.piece.len());
        let taken = bytes.get(..room).unwrap_or(bytes);
        self.piece.extend_from_slice(taken);
        if self.piece.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.shared.is_closing() {
            return Err(io::Error::other("the server stops"));
        }
        let piece = std::mem::replace(&mut self.piece, BytesMut::with_capacity(PIECE_BYTES));
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.sender.blocking_send(piece.freeze()).map_err(gone)
    }
}
