//! Child processes of a test: the test binary, run again for one test with a role in its
//! environment.
//!
//! A child reports on its standard output, one line per report, each prefixed with `# ` because the
//! test runner writes there too. Only complete lines count, so a report cut short by a kill was
//! never made.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, ExitStatus, Stdio};

const ROLE: &str = "EMBERCASK_CHILD_ROLE";
const DIRECTORY: &str = "EMBERCASK_CHILD_DIRECTORY";
const NUMBERS: &str = "EMBERCASK_CHILD_NUMBERS";
const MARK: &str = "# ";

/// The role of this process, if it is a child.
pub struct Role {
    pub name: String,
    pub directory: PathBuf,
    pub numbers: Vec<u64>,
}

/// None in the process that runs the tests.
pub fn role() -> Option<Role> {
    let name = std::env::var(ROLE).ok()?;
    let numbers = std::env::var(NUMBERS).expect("numbers of the child");
    Some(Role {
        name,
        directory: std::env::var_os(DIRECTORY).expect("directory of the child").into(),
        numbers: numbers
            .split_terminator(' ')
            .map(|number| number.parse().expect("a number"))
            .collect(),
    })
}

/// Reports to the parent. Lines are whole, in the order in which the threads write them.
pub fn report(line: std::fmt::Arguments<'_>) {
    println!("{MARK}{line}");
}

/// Waits to be killed, or until the parent has gone.
pub fn wait_for_the_kill() {
    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
}

/// Ends this process at once, as a kill from outside would: nothing is flushed, closed or unwound.
pub fn die() -> ! {
    #[cfg(unix)]
    {
        unsafe extern "C" {
            safe fn raise(signal: i32) -> i32;
        }
        raise(SIGKILL);
    }
    std::process::abort()
}

/// Killed on drop, if not before.
pub struct Child {
    process: std::process::Child,
    reports: BufReader<ChildStdout>,
}

impl Child {
    /// Runs one test of this binary in a child process. The name of the test includes its module,
    /// as in `module_path!`.
    pub fn spawn(test: &str, role: &str, directory: &Path, numbers: &[u64]) -> Child {
        Child::spawn_under(&[], test, role, directory, numbers)
    }

    /// As [`spawn`](Self::spawn), run by the given command.
    pub fn spawn_under(command: &[&str], test: &str, role: &str, directory: &Path, numbers: &[u64]) -> Child {
        let binary = std::env::current_exe().expect("the path of this binary");
        let mut line: Vec<&OsStr> = command.iter().map(OsStr::new).collect();
        line.push(binary.as_os_str());
        let (_, test) = test.split_once("::").expect("the path of a test begins with its crate");
        let numbers: Vec<_> = numbers.iter().map(u64::to_string).collect();
        let mut process = Command::new(line[0])
            .args(&line[1..])
            .args([test, "--exact", "--nocapture"])
            .env(ROLE, role)
            .env(DIRECTORY, directory)
            .env(NUMBERS, numbers.join(" "))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child process");
        let reports = BufReader::new(process.stdout.take().expect("its output"));
        Child { process, reports }
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The next report; None once the child has ended.
    pub fn next_report(&mut self) -> Option<String> {
        loop {
            let mut line = Vec::new();
            self.reports.read_until(b'\n', &mut line).expect("a pipe can be read");
            if line.pop() != Some(b'\n') {
                return None;
            }
            let line = String::from_utf8(line).expect("reports are text");
            if let Some((_, report)) = line.split_once(MARK) {
                return Some(report.to_owned());
            }
        }
    }

    /// Kills it, wherever it is.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
    }

    /// Waits for it to end, after reading all reports. A child that waits for a kill ends.
    pub fn wait(mut self) -> ExitStatus {
        drop(self.process.stdin.take());
        while self.next_report().is_some() {}
        self.process.wait().expect("a child can be waited for")
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
        let _ = self.process.wait();
    }
}

/// The signal of [`Child::kill`] and [`die`].
#[cfg(unix)]
const SIGKILL: i32 = 9;

/// Whether a process was ended by a kill, from outside or by [`die`].
pub fn was_killed(status: ExitStatus) -> bool {
    // A child that fails panics, and the test runner exits with its own code. An abort, or a fault
    // in memory or a map, also ends with a signal, but another one.
    #[cfg(unix)]
    return std::os::unix::process::ExitStatusExt::signal(&status) == Some(SIGKILL);
    #[cfg(not(unix))]
    return status.code() != Some(0) && status.code() != Some(101);
}

/// Copies the files of a directory into another one, which is recreated.
pub fn copy_directory(from: &Path, to: &Path) {
    remove_directory(to);
    std::fs::create_dir_all(to).expect("a directory");
    let Ok(entries) = std::fs::read_dir(from) else { return };
    for entry in entries {
        let entry = entry.expect("an entry");
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("a copy");
    }
}

/// Removes a directory if there is one.
pub fn remove_directory(directory: &Path) {
    if directory.exists() {
        std::fs::remove_dir_all(directory).expect("a directory can be removed");
    }
}

/// Bytes of all files in a directory.
pub fn bytes_in(directory: &Path) -> u64 {
    std::fs::read_dir(directory)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").metadata().expect("its length").len())
        .sum()
}

/// Open files and maps of this process in this directory; empty on systems that do not list them.
pub fn open_in(directory: &Path) -> Vec<String> {
    let directory = directory.canonicalize().expect("a directory").display().to_string();
    if !cfg!(target_os = "linux") {
        return Vec::new();
    }
    let descriptors = std::fs::read_dir("/proc/self/fd").expect("a list of descriptors");
    // Another thread may close one meanwhile; the one used for listing is closed too.
    let descriptors =
        descriptors.filter_map(|entry| Some(std::fs::read_link(entry.ok()?.path()).ok()?.display().to_string()));
    let maps = std::fs::read_to_string("/proc/self/maps").expect("a list of maps");
    descriptors
        .chain(maps.lines().map(str::to_owned))
        .filter(|path| path.contains(&directory))
        .collect()
}
