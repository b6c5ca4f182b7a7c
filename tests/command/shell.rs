//! The command line: the shell, help, completions, manual pages, bench.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use crate::command::{Workplace, interrupt};
use serde_json::Value;

#[test]
fn a_script_of_commands_runs_on_one_open_store() {
    let at = Workplace::with_namespace();
    let script = "\
# a comment, and an empty line

key put -n N 'a key' \"a value\"
namespace create OTHER
key put -n OTHER k v --os
key get -n N 'a key' --text
key list -n OTHER --count
verify
help key put
exit
key get -n N nobody
";
    let output = at.fed(["shell"], script.as_bytes());
    let (said, told) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    );
    assert!(output.status.success() && told.is_empty(), "{told}");
    for part in ["a value\n", "\n1\n", "sound: ", "--if-absent"] {
        assert!(said.contains(part), "{part:?} is not in:\n{said}");
    }
    assert_eq!(at.text(["key", "get", "-n", "OTHER", "k"]), "v");
}

#[test]
fn a_namespace_that_is_in_use_is_that_of_all_commands_that_name_none() {
    let at = Workplace::with_namespace();
    at.done(["ns", "create", "two words"]);
    let script = "\
? put
use N
put k 1
ls --text
clear
use 'two words'
key put k 2
rename k l
get l
get -n N k
ttl -n N k
ns rename 'two words' --new-name OTHER
exists l k2
";
    let output = at.fed(["shell"], script.as_bytes());
    let said = String::from_utf8(output.stdout).unwrap();
    // One of the keys is absent, which ends the script.
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(output.stderr, b"");
    assert!(said.contains("--if-absent"), "{said}");
    // Each value is followed by a newline, so that a prompt does not hide it.
    assert!(said.contains("to \"l\".\n2\n1\nnone\nRenamed"), "{said}");
    assert!(said.ends_with("true\nfalse\n"), "{said}");
    assert_eq!(at.text(["get", "-n", "OTHER", "l"]), "2");
    let output = at.fed(["shell"], b"use N\nget k\nuse\nget k\n");
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(output.stdout, b"1\n");
    assert!(String::from_utf8(output.stderr).unwrap().contains("use NAME"));
    for (line, status) in [("use NO\n", 1), ("use N N\n", 2), ("clear N\n", 2)] {
        let output = at.fed(["shell"], line.as_bytes());
        assert_eq!(output.status.code(), Some(status), "{line}");
    }
    // Outside of a shell there are no such commands.
    at.fails(2, ["use", "N"]);
    at.fails(2, ["get", "k"]);
}

#[test]
fn help_in_a_shell_is_about_its_commands_and_a_line_that_is_not_text_is_refused() {
    let at = Workplace::with_namespace();
    let help = String::from_utf8(at.fed(["shell"], b"help\n").stdout).unwrap();
    assert!(
        help.starts_with("Commands at the prompt") && help.contains("  use ") && help.contains("  stats "),
        "{help}"
    );
    let output = at.fed(["shell"], b"get -n N \xff\n");
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.code() == Some(2) && told.contains("not text (UTF-8)") && told.contains("--key-format escaped"),
        "{told}"
    );
}

/// What a terminal shows of these commands. `script` of util-linux runs them on one.
#[cfg(target_os = "linux")]
fn on_a_terminal(at: &Workplace, commands: &str) -> String {
    let mut script = std::process::Command::new("script");
    let command = at.command([]);
    script.args(["--quiet", "--return", "--command", commands, "/dev/null"]);
    for (name, value) in command.get_envs() {
        script.env(name, value.unwrap_or_default());
    }
    let output = script
        .current_dir(command.get_current_dir().unwrap())
        .stdin(Stdio::null());
    let output = output
        .env("PROGRAM", command.get_program())
        .env("TERM", "dumb")
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().replace("\r\n", "\n")
}

#[cfg(target_os = "linux")]
#[test]
fn a_terminal_shows_values_on_lines_of_their_own_and_bytes_escaped() {
    let at = Workplace::with_namespace();
    at.done(["put", "-n", "N", "text", "v"]);
    at.done(["put", "-n", "N", "empty", ""]);
    at.done(["put", "-n", "N", "bytes", "ff1b", "--value-format", "hex", "--quiet"]);
    let shown = |line: &str| on_a_terminal(&at, &format!("\"$PROGRAM\" get -n N {line}"));
    assert_eq!(shown("text"), "v\n");
    assert_eq!(shown("empty"), "\n");
    assert_eq!(shown("text --text"), "v\n");
    assert_eq!(shown("bytes --quiet"), "\\xff\\x1b\n");
    assert!(shown("bytes").contains("--value-format raw"));
    assert_eq!(shown("text --value-format hex"), "76\n");
    // Not where a pipe or a file takes the value.
    assert_eq!(shown("text | od -An -tx1").trim(), "76");
}

/// A signal stops only the command that runs when it arrives.
#[test]
fn the_command_after_one_that_was_stopped_goes_its_way() {
    let at = Workplace::with_namespace();
    at.done(["--quiet", "export", "all.jsonl.gz"]);
    let mut child = at.spawned(["shell"]);
    let mut stdin = child.stdin.take().unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
    writeln!(stdin, "stats --json --every 0.05").unwrap();
    said.next().unwrap().unwrap();
    interrupt(&child);
    writeln!(stdin, "import all.jsonl.gz\nexit").unwrap();
    drop(stdin);
    let last = said.last().unwrap().unwrap();
    assert_eq!(last, "Imported 0 keys.");
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_script_ends_where_it_goes_wrong() {
    let at = Workplace::with_namespace();
    let output = at.fed(["shell"], b"key get -n N nobody\nkey put -n N k v\n");
    assert_eq!(output.status.code(), Some(1));
    at.fails(1, ["key", "get", "-n", "N", "k"]);
    let output = at.fed(["shell"], b"key frobnicate\n");
    assert_eq!(output.status.code(), Some(2));
    let output = at.fed(["shell"], b"key put -n N 'k\n");
    assert_eq!(output.status.code(), Some(2));
    for line in ["import -\n", "key put -n N k --path -\n", "bulk put -n N -\n"] {
        let output = at.fed(["shell"], line.as_bytes());
        assert_eq!(output.status.code(), Some(2), "{line}");
    }
    let output = at.fed(["shell"], b"shell\n");
    assert_eq!(output.status.code(), Some(2));
    at.fails(2, ["--store", "nowhere", "shell"]);
}

/// The words of every command.
fn commands() -> Vec<Vec<&'static str>> {
    let mut all: Vec<Vec<&str>> = vec![vec![]];
    all.extend(
        [
            "export",
            "import",
            "stats",
            "compact",
            "verify",
            "salvage",
            "checkpoint",
        ]
        .map(|name| vec![name]),
    );
    all.extend(["inspect", "shell", "bench", "completions", "man", "serve", "token"].map(|name| vec![name]));
    for (group, names) in [
        ("namespace", &["create", "list", "rename", "delete"][..]),
        (
            "key",
            &[
                "put", "get", "delete", "list", "exists", "ttl", "expire", "rename", "watch",
            ],
        ),
        ("bulk", &["put", "get", "delete"]),
        ("replica", &["init", "join", "status", "audit", "reset-log", "leave"]),
    ] {
        all.push(vec![group]);
        all.extend(names.iter().map(|name| vec![group, name]));
    }
    all
}

#[test]
fn the_help_of_every_command_fits_a_screen() {
    let at = Workplace::new();
    for mut words in commands() {
        // The usage has the command's full name.
        let usage = format!("Usage: {}", [&["embercask"], &words[..]].concat().join(" "));
        words.push("--help");
        let help = at.text(words.iter().copied());
        assert!(help.contains(&usage), "{usage:?} is not in:\n{help}");
        let widths = help.lines().map(|line| line.chars().count());
        let (lines, widest) = (help.lines().count(), widths.max().unwrap());
        assert!(
            (5..=40).contains(&lines) && widest <= 100,
            "{words:?}: {lines} lines, {widest} wide\n{help}"
        );
    }
    // Flags of `serve` that exceed a screen are in the long help.
    let (short, long) = (at.text(["serve", "--help"]), at.text(["help", "serve"]));
    assert!(short.contains("embercask help serve") && !short.contains("--log-format"));
    assert!(long.contains("--log-format") && long.contains("--listen"));
    assert!(at.text(["--version"]).starts_with("embercask "));
}

#[test]
fn completions_and_manual_pages_are_made() {
    let at = Workplace::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = at.text(["completions", shell]);
        assert!(script.contains("checkpoint"), "{shell}");
    }
    assert!(at.text(["man"]).contains(".TH embercask"));
    at.done(["man", "--directory", "man1"]);
    // One for each command and group, so the list in this test is complete.
    let mut expected: Vec<String> = commands()
        .into_iter()
        .map(|words| format!("{}.1", [&["embercask"], &words[..]].concat().join("-")))
        .collect();
    expected.sort();
    let pages = std::fs::read_dir(at.path("man1")).unwrap();
    let mut pages: Vec<String> = pages
        .map(|page| page.unwrap().file_name().into_string().unwrap())
        .collect();
    pages.sort();
    assert_eq!(pages, expected);
    for page in pages {
        let text = std::fs::read_to_string(at.path("man1").join(&page)).unwrap();
        assert!(
            text.contains(&format!(".TH {}", page.trim_end_matches(".1"))),
            "{page}: {text}"
        );
        let lines: Vec<&str> = text.lines().collect();
        let without_text = lines
            .windows(2)
            .find(|pair| pair[0].starts_with("\\fB\\-") && pair[1].is_empty());
        assert_eq!(without_text, None, "{page}: a flag without its text");
    }
}

#[test]
fn the_bench_measures_and_leaves_nothing_behind() {
    let at = Workplace::new();
    std::fs::create_dir(at.path("scratch")).unwrap();
    let run = [
        "bench",
        "--directory",
        "scratch",
        "--keys",
        "2000",
        "--seconds",
        "0.05",
        "--os",
    ];
    let lines = at.text(run.iter().copied().chain(["--json"]));
    let loads: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(loads.len(), 7);
    for load in &loads {
        let number = |name: &str| load[name].as_u64().unwrap_or_else(|| panic!("no {name} in {load}"));
        assert!(
            load["per_second"].as_f64().unwrap() > 0.0 && number("operations") > 0,
            "{load}"
        );
        let latencies = ["p50_ns", "p99_ns", "p999_ns", "worst_ns"].map(number);
        assert!(latencies[0] > 0 && latencies.is_sorted(), "{load}");
    }
    assert_eq!(
        (&loads[0]["load"], &loads[0]["operations"]),
        (&"fill".into(), &2000.into())
    );
    assert!(at.text(run).contains("p99.9"));
    assert_eq!(std::fs::read_dir(at.path("scratch")).unwrap().count(), 0);
    at.fails(2, ["bench", "--keys", "0"]);
    for seconds in ["-1", "0", "1e19", "nan"] {
        at.fails(2, ["bench", "--seconds", seconds]);
    }
    for wrong in [
        ["--threads", "0"],
        ["--threads", "100000"],
        ["--keys", "1e19"],
        ["--value-bytes", "1099511627776"],
    ] {
        at.fails(2, ["bench"].iter().copied().chain(wrong));
    }
    at.fails(2, ["bench", "--directory", "nowhere"]);
}
