//! Runs the command `embercask`, and checks its output.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use embercask::Store;

/// The longest wait of a test: only something that hangs takes this long.
const PATIENCE: Duration = Duration::from_secs(240);

/// A directory for a store and files, and the command on it.
pub struct Workplace {
    directory: tempfile::TempDir,
}

impl Workplace {
    pub fn new() -> Workplace {
        Workplace {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    /// A store with a namespace N.
    pub fn with_namespace() -> Workplace {
        let workplace = Workplace::new();
        workplace.done(["namespace", "create", "N"]);
        workplace
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The id of a namespace.
    pub fn id_of(&self, name: &str) -> String {
        let listed = self.json(["namespace", "list"]);
        let found = listed.as_array().unwrap().iter().find(|listed| listed["title"] == name);
        found.unwrap()["id"].as_str().unwrap().to_owned()
    }

    /// A new token, and its lines of a settings file, with more lines.
    pub fn token(&self, name: &str, more: &str) -> (String, String) {
        let made = self.text(["token", name]);
        let (token, setting) = made.split_once("\n\n").unwrap();
        (token.to_owned(), format!("{setting}{more}\n"))
    }

    /// The store, opened by the library.
    pub fn store(&self) -> Store {
        Store::options().create(false).open(self.path("store")).unwrap()
    }

    /// Flips a bit in the one value that holds these bytes, in the files of the store.
    pub fn damage(&self, needle: &[u8]) {
        for entry in std::fs::read_dir(self.path("store")).unwrap() {
            let path = entry.unwrap().path();
            let mut bytes = std::fs::read(&path).unwrap();
            let Some(at) = bytes.windows(needle.len()).position(|window| window == needle) else {
                continue;
            };
            bytes[at] ^= 1;
            return std::fs::write(&path, &bytes).unwrap();
        }
        panic!("no file of the store has it");
    }

    /// The command with these arguments, on the store.
    pub fn command<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_embercask"));
        command
            .current_dir(self.directory.path())
            .env("EMBERCASK_STORE", "store")
            .env("XDG_STATE_HOME", self.path("state"))
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    pub fn run<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Output {
        let mut command = self.command(arguments);
        ended(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// As `run`, with this input.
    pub fn fed<'a>(&self, arguments: impl IntoIterator<Item = &'a str>, input: &[u8]) -> Output {
        let mut child = self.spawned(arguments);
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        // The command may exit before it has read everything.
        let feeder = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let output = ended(child);
        feeder.join().unwrap();
        output
    }

    /// Starts the command with pipes for standard input, output and error.
    pub fn spawned<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Child {
        let mut command = self.command(arguments);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    /// The output of a command that succeeds.
    pub fn done<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
        let output = self.run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{:?}: {errors}", output.status);
        assert_eq!(errors, "", "something on standard error");
        output.stdout
    }

    /// As `done`, as text.
    pub fn text<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> String {
        String::from_utf8(self.done(arguments)).unwrap()
    }

    /// As `done`, as JSON.
    pub fn json<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> serde_json::Value {
        serde_json::from_slice(&self.done(arguments)).unwrap()
    }

    /// The standard error of a command that exits with this status, and prints no output.
    pub fn fails<'a>(&self, status: i32, arguments: impl IntoIterator<Item = &'a str>) -> String {
        let output = self.run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(status), "{errors}");
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "",
            "something on standard output"
        );
        errors
    }
}

/// Waits for a child, and returns its output. One that does not end, such as a server that should
/// refuse its settings, is killed, and fails the test.
pub fn ended(child: Child) -> Output {
    let process = child.id().to_string();
    let (has_ended, end) = mpsc::channel::<()>();
    let watcher = std::thread::spawn(move || {
        let is_late = end.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout);
        is_late
            && Command::new("kill")
                .args(["-KILL", &process])
                .status()
                .unwrap()
                .success()
    });
    let output = child.wait_with_output().unwrap();
    drop(has_ended);
    assert!(!watcher.join().unwrap(), "it did not end within {PATIENCE:?}");
    output
}

/// Sends the signal of Ctrl-C.
pub fn interrupt(child: &Child) {
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(killed.unwrap().success());
}

/// Waits for a condition; fails if it does not come true in time.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what} has not come about");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Seconds since the epoch.
pub fn now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.unwrap().as_secs()
}

/// Bytes that this line in the status of a process says, such as `RssAnon`; None once the process
/// has ended. Its exit status must not have been collected.
#[cfg(target_os = "linux")]
pub fn memory_of(process: &Child, line: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let found = status
        .lines()
        .find_map(|found| found.strip_prefix(line)?.strip_prefix(':'))?;
    let kilobytes: u64 = found.trim().strip_suffix(" kB").unwrap().parse().unwrap();
    Some(kilobytes << 10)
}

/// Bytes in a file, or in the files of a directory; 0 if it does not exist.
pub fn bytes_in(path: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else {
        return std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    };
    let files = entries.filter_map(|entry| entry.ok()?.metadata().ok());
    files.map(|metadata| metadata.len()).sum()
}

/// The standard error of a child that a signal stopped in good order.
pub fn stopped(child: Child) -> String {
    let output = ended(child);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{:?}: {told}", output.status);
    assert!(told.starts_with("error: stopped"), "{told}");
    told
}
