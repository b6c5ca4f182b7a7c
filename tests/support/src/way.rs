//! Ways to open a store, for tests that need a certain one: by the index file, by hints, by
//! records, or by a mixture. A clean close leaves all files, and opening then reads only the index
//! file. So a test that needs another way removes the files that would spare that work, and asserts
//! by the recovery report that the way was taken.

use std::path::Path;

use embercask::RecoveryReport;
use embercask::storage::MemStorage;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Only the index file, as a clean close leaves it.
    IndexFile,
    /// The hint of each sealed segment.
    Hints,
    /// All records of all segments.
    Records,
    /// Some hints, and the records of the other segments. A set bit removes a hint, counted in the
    /// order of their names. Of two or more hints, at least one is removed and at least one kept.
    Mixed(u64),
}

impl Way {
    /// One of each kind.
    pub const ALL: [Way; 4] = [Way::IndexFile, Way::Hints, Way::Records, Way::Mixed(1)];
    /// Those that build the indexes from the log.
    pub const BY_LOG: [Way; 3] = [Way::Hints, Way::Records, Way::Mixed(1)];

    /// Leaves in the store's directory only the files this way needs.
    pub fn prepare(self, disk: &MemStorage, directory: impl AsRef<Path>) -> Prepared {
        let directory = directory.as_ref();
        let files = disk.files(directory);
        let names = files.iter().filter_map(|path| path.file_name()?.to_str()).collect();
        self.leave(names, |name| disk.remove_file(directory.join(name)).unwrap())
    }

    /// As [`prepare`](Self::prepare), on a real disk.
    pub fn prepare_directory(self, directory: &Path) -> Prepared {
        let entries = match std::fs::read_dir(directory) {
            // Nothing has been created yet.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            entries => Some(entries.unwrap()),
        };
        let entries = entries.into_iter().flatten();
        let files: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        let names = files.iter().filter_map(|name| name.to_str()).collect();
        self.leave(names, |name| std::fs::remove_file(directory.join(name)).unwrap())
    }

    fn leave(self, mut names: Vec<&str>, remove: impl Fn(&str)) -> Prepared {
        names.sort_unstable();
        let had_index_file = names.contains(&"INDEX");
        let hints: Vec<_> = names.iter().filter(|name| name.ends_with(".hint")).collect();
        if had_index_file && self != Way::IndexFile {
            remove("INDEX");
        }
        let missing = match self {
            Way::IndexFile | Way::Hints => 0,
            Way::Records => u64::MAX,
            Way::Mixed(missing) => {
                let all = (1 << hints.len().min(63)) - 1;
                match missing & all {
                    none_or_all if none_or_all == 0 || none_or_all == all => 1,
                    some => some,
                }
            }
        };
        let is_missing = |n: usize| missing >> n.min(63) & 1 != 0;
        for (n, hint) in hints.iter().enumerate() {
            if is_missing(n) {
                remove(hint);
            }
        }
        Prepared {
            way: self,
            index_file: had_index_file && self == Way::IndexFile,
            hints: (0..hints.len()).filter(|n| !is_missing(*n)).count() as u64,
        }
    }
}

/// The files in a store's directory that speed up opening.
#[derive(Clone, Copy, Debug)]
pub struct Prepared {
    way: Way,
    pub index_file: bool,
    pub hints: u64,
}

impl Prepared {
    /// Opening took the intended way. For a sound store that was closed, or killed with nothing
    /// under way.
    #[track_caller]
    pub fn assert_taken(&self, report: &RecoveryReport) {
        self.assert_all_used(report);
        let (hints, records) = (report.hints_used, report.hints_rebuilt);
        let taken = match self.way {
            Way::IndexFile => report.index_file_used,
            Way::Hints => hints > 0 && (records == 0 || !report.clean),
            Way::Records => hints == 0 && !report.index_file_used && (records == report.segments || !report.clean),
            Way::Mixed(_) => hints > 0 && (records > 0 || !report.clean),
        };
        assert!(taken, "{:?} was intended: {report:?}", self.way);
    }

    /// Every such file was used, even if another way was intended: a killed store has no index
    /// file.
    #[track_caller]
    pub fn assert_all_used(&self, report: &RecoveryReport) {
        let hints = if self.index_file { 0 } else { self.hints };
        assert_eq!(
            (report.index_file_used, report.hints_used),
            (self.index_file, hints),
            "{self:?}: {report:?}"
        );
    }

    /// No file was used that does not exist: for stores on which a crash left unfit files.
    #[track_caller]
    pub fn assert_no_more_used(&self, report: &RecoveryReport) {
        assert!(
            report.index_file_used <= self.index_file && report.hints_used <= self.hints,
            "{self:?}: {report:?}"
        );
    }
}
