//! The file of a unix socket: made only where there is no listener, and removed only by its maker.

use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

use super::permissions;
use crate::planted::{Planted, planted};

/// A file, by device and inode. The inode of a socket is not given to another file as long as the
/// socket is open.
type Identity = (u64, u64);

/// A socket with a path, which is removed when this is dropped.
pub(super) struct SocketFile {
    pub(super) listener: UnixListener,
    path: PathBuf,
    /// None if the path was gone at once.
    made: Option<Identity>,
}

impl SocketFile {
    /// Must be called on the runtime.
    pub(super) fn bind(path: &Path) -> io::Result<SocketFile> {
        remove_stale(path)?;
        let listener = UnixListener::bind(path)?;
        let made = identity(path);
        permissions::open_socket(path)?;
        Ok(SocketFile {
            listener,
            path: path.to_owned(),
            made,
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Another server may have put its own there meanwhile.
        if planted(Planted::RemoveAnySocket) || self.made.is_some() && identity(&self.path) == self.made {
            // If that fails, the next server removes it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<Identity> {
    let metadata = std::fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Removes a socket that no process listens to any more. An error if the path is taken.
fn remove_stale(path: &Path) -> io::Result<()> {
    let taken = |what: &str| Err(io::Error::new(ErrorKind::AlreadyExists, what));
    let found = match std::fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !found.file_type().is_socket() {
        return taken("there is a file that is not a socket");
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            // Only what was asked, not what another server has made meanwhile.
            if identity(path) == Some((found.dev(), found.ino())) {
                std::fs::remove_file(path)?;
            }
            Ok(())
        }
        Ok(_) => taken("another process listens there"),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_made_where_nobody_listens_and_removed_by_whoever_made_it() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let _entered = runtime.enter();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        // Left by a server that was killed.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let first = SocketFile::bind(&path).unwrap();
        let told = SocketFile::bind(&path).err().unwrap().to_string();
        assert_eq!(told, "another process listens there");
        // It is taken away by hand, and another server makes its own.
        std::fs::remove_file(&path).unwrap();
        let second = SocketFile::bind(&path).unwrap();
        drop(first);
        assert!(
            std::os::unix::net::UnixStream::connect(&path).is_ok(),
            "the second one's"
        );
        drop(second);
        assert!(!path.exists());

        std::fs::write(&path, "a file").unwrap();
        let told = SocketFile::bind(&path).err().unwrap().to_string();
        assert_eq!(told, "there is a file that is not a socket");
        assert_eq!(std::fs::read(&path).unwrap(), b"a file");
    }
}
