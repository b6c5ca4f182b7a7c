//! The lines that were typed in earlier shells. Keys and values are among them, so that the file is
//! for its owner alone.

use std::path::{Path, PathBuf};

use rustyline::history::FileHistory;
use rustyline::{Editor, Helper};

/// The history file, in the state directory of the XDG Base Directory Specification.
pub(super) fn file() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let state = state.filter(|state| state.is_absolute());
    let state = state.or_else(|| Some(std::env::home_dir()?.join(".local/state")))?;
    Some(state.join("embercask/history"))
}

/// Adds the lines of this shell. A failure to keep them must not end the shell.
pub(super) fn keep<H: Helper>(editor: &mut Editor<H, FileHistory>, path: &Path) {
    let _ = path.parent().map(std::fs::create_dir_all);
    // A file that an earlier version or a copy has left open to others is closed before anything is
    // added to it.
    make_private(path);
    // Appends, since other shells may have written to it meanwhile.
    let _ = editor.append_history(path);
    make_private(path);
}

#[cfg(unix)]
fn make_private(path: &Path) {
    use std::os::unix::fs::PermissionsExt;

    let _ = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600));
}

#[cfg(not(unix))]
fn make_private(_: &Path) {}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rustyline::config::Configurer;

    use super::*;

    #[test]
    fn the_history_is_for_its_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state/history");
        let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        let mut editor = Editor::<(), FileHistory>::new().unwrap();
        editor.set_history_ignore_space(true);
        editor.add_history_entry("put -n N k secret").unwrap();
        keep(&mut editor, &path);
        assert_eq!(mode(), 0o600);
        // One that others can read is closed to them.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        editor.add_history_entry("get -n N k").unwrap();
        editor.add_history_entry(" put -n N k another").unwrap();
        keep(&mut editor, &path);
        assert_eq!(mode(), 0o600);
        let lines = std::fs::read_to_string(&path).unwrap();
        assert!(lines.contains("secret") && lines.contains("get -n N k"), "{lines}");
        assert!(!lines.contains("another"), "{lines}");
    }
}
