//! Where the names of files lead.

use std::path::{Path, PathBuf};

/// As many links as Linux follows.
const LINKS_MAX: usize = 40;

/// The path with the links at its end followed, so that a file beside it can replace the file, not
/// a link to it. None if it leads to an open file of a process, such as `/dev/stdout`, which has no
/// name of its own.
pub(super) fn followed(path: &Path) -> Option<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        if is_open_file(&path) {
            return None;
        }
        let Ok(target) = std::fs::read_link(&path) else {
            break;
        };
        path = path.parent().unwrap_or(Path::new("")).join(target);
    }
    Some(path)
}

fn is_open_file(path: &Path) -> bool {
    let streams = ["/dev/stdin", "/dev/stdout", "/dev/stderr"];
    path.starts_with("/dev/fd") || path.starts_with("/proc") || streams.map(Path::new).contains(&path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_files_have_no_name() {
        for path in [
            "/dev/stdin",
            "/dev/stdout",
            "/dev/stderr",
            "/dev/fd/1",
            "/proc/self/fd/1",
        ] {
            assert_eq!(followed(Path::new(path)), None, "{path}");
        }
        for path in ["file", "/dev/null", "/dev/shm/file", "no/such/file"] {
            assert_eq!(followed(Path::new(path)).as_deref(), Some(Path::new(path)));
        }
    }
}
