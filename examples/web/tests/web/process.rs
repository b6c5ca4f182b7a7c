//! The program itself.

use std::process::{Command, Output, Stdio};

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

#[cfg(unix)]
#[test]
fn a_signal_stops_the_program_and_the_store_is_closed() {
    use std::io::{BufRead, BufReader};
    for signal in ["TERM", "INT"] {
        let directory = tempfile::tempdir().unwrap();
        let mut command = web(&[directory.path().to_str().unwrap(), "127.0.0.1:0"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert!(line.starts_with("http://127.0.0.1:"), "{line}");
        let killed = Command::new("kill")
            .args([format!("-{signal}"), child.id().to_string()])
            .status();
        assert!(killed.unwrap().success());
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let store = embercask_web::options().open(directory.path()).unwrap();
        assert!(store.recovery_report().clean, "SIG{signal}");
    }
}
