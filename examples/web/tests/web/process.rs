//! The program itself.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

fn web(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_embercask-web"));
    command.args(arguments);
    command
}

fn error_of(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn arguments_that_cannot_be_used_are_refused_with_a_reason() {
    for arguments in [&[][..], &["data"], &["data", "127.0.0.1:0", "more"]] {
        let output = web(arguments).output().unwrap();
        assert!(
            error_of(&output).starts_with("usage: embercask-web DIRECTORY ADDRESS"),
            "{arguments:?}"
        );
    }
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let data = data.to_str().unwrap();
    let error = error_of(&web(&[data, "nowhere"]).output().unwrap());
    assert!(error.contains("cannot listen at nowhere: "), "{error}");
    std::fs::write(directory.path().join("file"), "").unwrap();
    let file = directory.path().join("file");
    let error = error_of(&web(&[file.to_str().unwrap(), "127.0.0.1:0"]).output().unwrap());
    assert!(error.contains("file"), "{error}");
}

/// The program on a store. Killed when this is dropped.
struct Running {
    child: Child,
    address: String,
}

impl Running {
    fn start(directory: &Path) -> Running {
        let mut command = web(&[directory.to_str().unwrap(), "127.0.0.1:0"]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let output = child.stdout.take().unwrap();
        let mut running = Running {
            child,
            address: String::new(),
        };
        BufReader::new(output).read_line(&mut running.address).unwrap();
        running
    }

    /// Sends a request with these headers, and returns the head and the body of the answer.
    fn ask(&self, request: &str, headers: &str, body: &str) -> String {
        let address = self.address.trim_end().strip_prefix("http://").unwrap();
        let mut connection = TcpStream::connect(address).unwrap();
        let length = body.len();
        write!(
            connection,
            "{request} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{headers}"
        )
        .unwrap();
        write!(connection, "content-length: {length}\r\n\r\n{body}").unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_session_survives_the_sudden_end_of_the_program() {
    let directory = tempfile::tempdir().unwrap();
    let running = Running::start(directory.path());
    let form = "content-type: application/x-www-form-urlencoded\r\n";
    let answer = running.ask("POST /login", form, "name=ada");
    drop(running);

    let cookie = answer.split("set-cookie: ").nth(1).unwrap().split(';').next().unwrap();
    let running = Running::start(directory.path());
    let answer = running.ask("GET /visits", &format!("cookie: {cookie}\r\n"), "");
    assert!(answer.ends_with("\r\n\r\nvisit 1 of ada\n"), "{answer}");
}

#[cfg(unix)]
#[test]
fn a_signal_stops_the_program_and_the_store_is_closed() {
    for signal in ["TERM", "INT"] {
        let directory = tempfile::tempdir().unwrap();
        let mut running = Running::start(directory.path());
        let id = running.child.id().to_string();
        let killed = Command::new("kill").args([format!("-{signal}"), id]).status();
        assert!(killed.unwrap().success());
        let status = running.child.wait().unwrap();
        assert!(status.success(), "SIG{signal}: {status}");
        let store = embercask_web::options().open(directory.path()).unwrap();
        assert!(store.recovery_report().clean, "SIG{signal}");
    }
}
