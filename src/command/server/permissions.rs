//! Who may read the files of a server with tokens: its user, since others would read past the
//! tokens.

#[cfg(unix)]
pub(super) use on_unix::{open_socket, restrict, tighten_store};

#[cfg(unix)]
mod on_unix {
    use std::fs::{self, Permissions};
    use std::io;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::sync::OnceLock;

    use rustix::fs::Mode;

    /// The process's mask before it was replaced.
    static USUAL_MASK: OnceLock<Mode> = OnceLock::new();

    /// From now on files and directories of this process are for its user only.
    pub(in crate::server) fn restrict() {
        USUAL_MASK.get_or_init(|| rustix::process::umask(Mode::RWXG | Mode::RWXO));
    }

    /// Gives a socket the mode that the usual mask leaves: clients that may write to it are still
    /// asked for a token.
    pub(in crate::server) fn open_socket(path: &Path) -> io::Result<()> {
        match USUAL_MASK.get() {
            Some(mask) => fs::set_permissions(path, Permissions::from_mode(0o777 & !mask.bits())),
            None => Ok(()),
        }
    }

    /// Takes the permissions of others from a store that was made without tokens, or warns that
    /// this is not possible.
    pub(in crate::server) fn tighten_store(directory: &Path) {
        match tighten(directory) {
            Ok(0) => {}
            Ok(files) => tracing::info!(files, "files of the store are now for the user of the server only"),
            Err(error) => {
                let directory = directory.display();
                tracing::warn!(%directory, %error, "other users may read files of the store, past the tokens");
            }
        }
    }

    /// Takes the permissions of all others from a directory and the files in it. Returns how many
    /// had some.
    fn tighten(directory: &Path) -> io::Result<u64> {
        let mut tightened = 0;
        let mut tighten_one = |path: &Path, metadata: &fs::Metadata| {
            let mode = metadata.permissions().mode();
            if mode & 0o077 != 0 {
                fs::set_permissions(path, Permissions::from_mode(mode & 0o7700))?;
                tightened += 1;
            }
            io::Result::Ok(())
        };
        tighten_one(directory, &fs::metadata(directory)?)?;
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            match entry.metadata() {
                Ok(metadata) if metadata.is_file() => match tighten_one(&entry.path(), &metadata) {
                    // Removed meanwhile by compaction.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    outcome => outcome?,
                },
                _ => {}
            }
        }
        Ok(tightened)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn what_others_may_is_taken_from_a_directory_and_its_files_once() {
            let directory = tempfile::tempdir().unwrap();
            let of = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
            let set = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
            let (store, outside) = (directory.path().join("store"), directory.path().join("outside"));
            fs::create_dir(&store).unwrap();
            fs::write(&outside, "").unwrap();
            set(&outside, 0o644);
            let files = ["a", "b"].map(|name| store.join(name));
            for (file, mode) in files.iter().zip([0o644, 0o600]) {
                fs::write(file, "").unwrap();
                set(file, mode);
            }
            std::os::unix::fs::symlink(&outside, store.join("link")).unwrap();
            set(&store, 0o755);
            assert_eq!(tighten(&store).unwrap(), 2);
            assert_eq!((of(&store), of(&files[0]), of(&files[1])), (0o700, 0o600, 0o600));
            assert_eq!(of(&outside), 0o644, "a link leads out of the store");
            assert_eq!(tighten(&store).unwrap(), 0);
        }
    }
}
