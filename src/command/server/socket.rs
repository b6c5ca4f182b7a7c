//! The file of a unix socket: made only where there is no listener, and removed only by its maker.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use tokio::net::{UnixListener, UnixStream};

use super::permissions;
use crate::planted::{Planted, planted};

/// A file, by device and inode. The inode of a socket is not given to another file as long as the
/// socket is open.
type Identity = (u64, u64);

/// How often, and with which pauses, the lock of a directory is tried.
const LOCK_ATTEMPTS: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

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
        let _alone = lock_directory(path);
        remove_stale(path)?;
        let socket = SocketFile {
            listener: UnixListener::bind(path)?,
            path: path.to_owned(),
            made: identity(path),
        };
        permissions::open_socket(path)?;
        Ok(socket)
    }
}

/// Keeps other servers from making a socket in the same directory until it is dropped: one could
/// remove, as a stale one, what another has just made. None if that is not possible, or takes long,
/// since any process that may read the directory can hold the lock.
fn lock_directory(path: &Path) -> Option<File> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = File::open(directory.unwrap_or(Path::new("."))).ok()?;
    for _ in 0..LOCK_ATTEMPTS {
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Some(directory),
            Err(Errno::WOULDBLOCK) => std::thread::sleep(LOCK_PAUSE),
            Err(_) => return None,
        }
    }
    None
}

/// Whether a process listens to this socket. Does not wait, as a plain `connect` does while the
/// queue of a busy server is full. Must be called on the runtime.
fn has_listener(path: &Path) -> io::Result<bool> {
    let connected = pin!(UnixStream::connect(path));
    match connected.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Err(error)) => match error.kind() {
            ErrorKind::ConnectionRefused | ErrorKind::NotFound => Ok(false),
            ErrorKind::WouldBlock => Ok(true),
            _ => Err(error),
        },
        Poll::Ready(Ok(_)) | Poll::Pending => Ok(true),
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
    if has_listener(path)? {
        return taken("another process listens there");
    }
    // Only what was asked, not what another program has made meanwhile.
    if identity(path) == Some((found.dev(), found.ino())) {
        std::fs::remove_file(path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
    use std::sync::Barrier;

    use tokio::net::UnixSocket;
    use tokio::runtime::Runtime;

    use super::*;

    fn runtime() -> Runtime {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap()
    }

    #[test]
    fn a_socket_is_made_where_no_process_listens_and_removed_by_its_maker() {
        let runtime = runtime();
        let _entered = runtime.enter();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        // Left by a server that was killed.
        drop(StdListener::bind(&path).unwrap());
        let first = SocketFile::bind(&path).unwrap();
        let told = SocketFile::bind(&path).err().unwrap().to_string();
        assert_eq!(told, "another process listens there");
        // It is taken away by hand, and another server makes its own.
        std::fs::remove_file(&path).unwrap();
        let second = SocketFile::bind(&path).unwrap();
        drop(first);
        assert!(StdStream::connect(&path).is_ok(), "the second one's");
        drop(second);
        assert!(!path.exists());

        std::fs::write(&path, "a file").unwrap();
        let told = SocketFile::bind(&path).err().unwrap().to_string();
        assert_eq!(told, "there is a file that is not a socket");
        assert_eq!(std::fs::read(&path).unwrap(), b"a file");
    }

    #[test]
    fn of_servers_that_start_at_the_same_time_one_gets_the_socket() {
        const SERVERS: usize = 4;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        for round in 0..50 {
            drop(StdListener::bind(&path).unwrap());
            let (begun, ended) = (Barrier::new(SERVERS), Barrier::new(SERVERS));
            let bind = || {
                let runtime = runtime();
                let _entered = runtime.enter();
                begun.wait();
                let bound = SocketFile::bind(&path);
                ended.wait();
                // Before any of them removes its own.
                let is_reached = StdStream::connect(&path).is_ok();
                ended.wait();
                (bound.is_ok(), is_reached)
            };
            let bound: Vec<_> = std::thread::scope(|scope| {
                let servers: Vec<_> = (0..SERVERS).map(|_| scope.spawn(bind)).collect();
                servers.into_iter().map(|server| server.join().unwrap()).collect()
            });
            assert!(bound.iter().all(|(_, is_reached)| *is_reached), "round {round}");
            assert_eq!(
                bound.iter().filter(|(is_bound, _)| *is_bound).count(),
                1,
                "round {round}"
            );
        }
    }

    #[test]
    fn a_listener_whose_queue_is_full_is_one() {
        let runtime = runtime();
        let _entered = runtime.enter();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let socket = UnixSocket::new_stream().unwrap();
        socket.bind(&path).unwrap();
        let _listener = socket.listen(1).unwrap();
        let mut waiting = Vec::new();
        loop {
            let connected = pin!(UnixStream::connect(&path));
            match connected.poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Err(error)) if error.kind() == ErrorKind::WouldBlock => break,
                Poll::Ready(connected) => waiting.push(Some(connected.unwrap())),
                Poll::Pending => waiting.push(None),
            }
            assert!(waiting.len() < 100, "no end of the queue");
        }
        let told = SocketFile::bind(&path).err().unwrap().to_string();
        assert_eq!(told, "another process listens there");
    }
}
