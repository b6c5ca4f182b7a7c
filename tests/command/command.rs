//! Running the command `embercask`, and looking at what it says.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use embercask::Store;

/// How long anything may take that a test waits for: only what hangs takes so long.
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

    /// With a namespace N.
    pub fn with_namespace() -> Workplace {
        let workplace = Workplace::new();
        workplace.done(["namespace", "create", "N"]);
        workplace
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
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

    /// As `run`, with this on standard input.
    pub fn fed<'a>(&self, arguments: impl IntoIterator<Item = &'a str>, input: &[u8]) -> Output {
        let mut child = self.spawned(arguments);
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        // It may end before it has read all.
        let feeder = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let output = ended(child);
        feeder.join().unwrap();
        output
    }

    /// Starts it with pipes for all three.
    pub fn spawned<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Child {
        let mut command = self.command(arguments);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    /// What it prints when all goes well.
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

    /// What it says on standard error when it exits with this status, and prints nothing.
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

/// What a child has said when it has ended. One that does not end, such as a server that was to
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

/// Ctrl-C, as the terminal sends it.
pub fn interrupt(child: &Child) {
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(killed.unwrap().success());
}

/// Waits until something has come about, which it will unless it is broken.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what} has not come about");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Bytes of a file, or of the files in a directory; 0 if there is none.
pub fn bytes_in(path: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else {
        return std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    };
    let files = entries.filter_map(|entry| entry.ok()?.metadata().ok());
    files.map(|metadata| metadata.len()).sum()
}

/// What a child that was stopped by a signal in good order has told.
pub fn stopped(child: Child) -> String {
    let output = ended(child);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{:?}: {told}", output.status);
    assert!(told.starts_with("error: stopped"), "{told}");
    told
}
