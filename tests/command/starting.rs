//! Starting the server: whether it creates a store, its tokens, addresses, files and options.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::command::Workplace;
use crate::http::{NAMESPACES, SERVE, Server, TOKEN, bearer, request, started};

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
}

fn status_with(server: &Server, token: &str) -> u16 {
    let value = bearer(token);
    request(&server.rest, "GET", NAMESPACES, &[("Authorization", &value)], b"").status
}

#[test]
fn a_store_is_created_only_if_that_is_asked_for() {
    let at = Workplace::new();
    let told = at.fails(2, SERVE);
    assert!(told.contains("store") && told.contains("hint: `--create`"), "{told}");
    assert!(!at.path("store").exists());
    // Perhaps the directory of a disk that is not mounted.
    fs::create_dir(at.path("store")).unwrap();
    let told = at.fails(2, SERVE);
    assert!(told.contains("is empty") && told.contains("--create"), "{told}");
    assert_eq!(fs::read_dir(at.path("store")).unwrap().count(), 0);

    let mut command = at.command(SERVE);
    command.env("EMBERCASK_CREATE", "true");
    assert_eq!(Server::start(command, 0).stop(), Some(0));
    assert_eq!(started(&at, &[]).stop(), Some(0), "it is there now");
    fs::create_dir(at.path("other")).unwrap();
    fs::write(at.path("other/file"), "").unwrap();
    let told = at.fails(2, ["--store", "other", "serve", "--create"]);
    assert!(told.contains("other files") && !told.contains("--create"), "{told}");
    let told = at.fails(2, ["--store", "other", "serve"]);
    assert!(
        told.contains("other files") && told.contains("absent or empty"),
        "{told}"
    );
    fs::write(at.path("serve.toml"), "create = true\nstore = \"made\"").unwrap();
    let mut command = at.command(SERVE.iter().copied().chain(["--config", "serve.toml"]));
    command.env_remove("EMBERCASK_STORE");
    assert_eq!(Server::start(command, 0).stop(), Some(0));
    assert!(at.path("made/MANIFEST").exists());
}

#[test]
fn a_newline_after_a_token_is_none_of_it() {
    let at = Workplace::with_namespace();
    let mut command = at.command(SERVE);
    command.env("EMBERCASK_TOKEN", format!("{TOKEN}\n"));
    let mut server = Server::start(command, 0);
    assert_eq!(status_with(&server, TOKEN), 200);
    assert_eq!(server.stop(), Some(0));

    fs::write(at.path("token"), format!("{TOKEN}\r\n")).unwrap();
    let server = started(&at, &["--token-file", "token"]);
    assert_eq!(
        (status_with(&server, TOKEN), status_with(&server, "another")),
        (200, 403)
    );
    // It is read again as those of the settings are.
    fs::write(at.path("token"), "another token, as long\n").unwrap();
    let value = bearer(TOKEN);
    let reloaded = request(
        &server.rest,
        "POST",
        "/admin/reload-tokens",
        &[("Authorization", &value)],
        b"",
    );
    assert_eq!(reloaded.status, 200, "{reloaded:?}");
    assert_eq!(
        (
            status_with(&server, "another token, as long"),
            status_with(&server, TOKEN)
        ),
        (200, 403)
    );
    drop(server);
    fs::write(at.path("token"), format!("{TOKEN}\n{TOKEN}\n")).unwrap();
    let told = at.fails(2, SERVE.iter().copied().chain(["--token-file", "token"]));
    assert!(told.contains("single line"), "{told}");
    let told = at.fails(2, SERVE.iter().copied().chain(["--token-file", "absent"]));
    assert!(told.contains("absent"), "{told}");
}

#[test]
fn a_token_for_a_namespace_that_does_not_exist_is_warned_of() {
    let at = Workplace::with_namespace();
    let (_, setting) = at.token("misspelt", "namespaces = [\"N\", \"Nn\"]");
    fs::write(at.path("serve.toml"), setting).unwrap();
    let mut command = at.command(SERVE.iter().copied().chain(["--config", "serve.toml"]));
    command.stderr(File::create(at.path("log")).unwrap());
    assert_eq!(Server::start(command, 0).stop(), Some(0));
    let log = fs::read_to_string(at.path("log")).unwrap();
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains("WARN")).collect();
    assert!(
        warnings.len() == 1 && warnings[0].contains("misspelt") && warnings[0].contains("namespace=Nn"),
        "{log}"
    );
}

/// Others would read past the tokens.
#[test]
fn with_tokens_the_files_of_the_store_are_for_its_user() {
    let at = Workplace::with_namespace();
    let all = |directory: &Path| {
        let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        let mut all: Vec<_> = files.collect();
        all.push(directory.to_owned());
        all
    };
    for path in all(&at.path("store")) {
        let mode = if path.is_dir() { 0o755 } else { 0o644 };
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    }
    let socket = at.path("socket");
    let address = format!("N=unix:{}", socket.display());
    let mut server = Server::start(at.command(SERVE.iter().copied().chain(["--binding-for", &address])), 1);
    let usual = mode(&socket);
    assert_eq!(server.stop(), Some(0));
    assert!(
        all(&at.path("store")).iter().any(|path| mode(path) & 0o077 != 0),
        "without tokens nothing changes"
    );

    let with_token = [
        "--binding-for",
        &*address,
        "--token",
        TOKEN,
        "--option",
        "segment_bytes=64KiB",
    ];
    let mut server = Server::start(at.command(SERVE.iter().copied().chain(with_token)), 1);
    let token = bearer(TOKEN);
    for number in 0..8 {
        let put = server.bound(
            "PUT",
            &number.to_string(),
            &[("Authorization", &token)],
            &vec![b'v'; 60 << 10],
        );
        assert_eq!(put.status, 200);
    }
    for path in all(&at.path("store")) {
        assert_eq!(mode(&path) & 0o077, 0, "{}", path.display());
    }
    assert_eq!(mode(&socket), usual, "who may write to it is asked for a token");
    assert_eq!(server.stop(), Some(0));
    for path in all(&at.path("store")) {
        assert_eq!(mode(&path) & 0o077, 0, "{}", path.display());
    }
    // A store that such a server creates.
    let created = SERVE
        .iter()
        .copied()
        .chain(["--store", "new", "--create", "--token", TOKEN]);
    assert_eq!(Server::start(at.command(created), 0).stop(), Some(0));
    for path in all(&at.path("new")) {
        assert_eq!(mode(&path) & 0o077, 0, "{}", path.display());
    }
}

#[test]
fn a_server_that_stops_removes_its_own_socket_only() {
    let at = Workplace::with_namespace();
    let socket = at.path("socket");
    let address = format!("N=unix:{}", socket.display());
    let start = |store: &str| {
        let more = ["--store", store, "--create", "--binding-for", &*address];
        Server::start(at.command(SERVE.iter().copied().chain(more)), 1)
    };
    let mut first = start("store");
    let second = ["--store", "second", "--create", "--binding-for", &*address];
    let told = at.run(SERVE.iter().copied().chain(second));
    let told = String::from_utf8(told.stderr).unwrap();
    assert!(told.contains("another process listens there"), "{told}");
    fs::remove_file(&socket).unwrap();
    let mut second = start("second");
    assert_eq!(first.stop(), Some(0));
    assert!(UnixStream::connect(&socket).is_ok(), "it is the second one's");
    // One that is killed leaves its socket, which the next one replaces.
    second.kill();
    assert!(socket.exists() && UnixStream::connect(&socket).is_err());
    let mut third = start("store");
    assert!(UnixStream::connect(&socket).is_ok());
    assert_eq!(third.stop(), Some(0));
    assert!(!socket.exists());
    fs::write(&socket, "a file").unwrap();
    let told = at.run(SERVE.iter().copied().chain(["--binding-for", &*address]));
    assert!(String::from_utf8(told.stderr).unwrap().contains("not a socket"));
    assert_eq!(fs::read(&socket).unwrap(), b"a file");
}

#[test]
fn addresses_and_levels_that_are_none_are_told_what_would_be_one() {
    let at = Workplace::with_namespace();
    for (wrong, told) in [
        (["--listen", "unix:"], "path of the socket"),
        (["--binding-for", "N=unix:"], "path of the socket"),
        (["--listen", "db.example:8787"], "only localhost"),
        (["--binding", "localhost"], "looks like"),
    ] {
        let message = at.fails(2, ["serve"].into_iter().chain(wrong));
        assert!(message.contains(told), "{wrong:?}: {message}");
    }
    for wrong in ["warning", "info,verbose", ""] {
        // A server that took it would end for lack of a listener.
        let message = at.fails(2, ["serve", "--listen", "off", "--binding", "off", "--log", wrong]);
        assert!(
            message.contains("error, warn, info, debug, trace, off"),
            "{wrong:?}: {message}"
        );
    }
    let arguments = [
        "serve",
        "--listen",
        "localhost:0",
        "--binding",
        "LOCALHOST:0",
        "--log",
        "off,hyper=WARN",
    ];
    let mut server = Server::start(at.command(arguments), 0);
    assert!(server.rest.starts_with("127.0.0.1:") && server.binding.starts_with("127.0.0.1:"));
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn an_error_is_logged_once_however_many_requests_meet_it() {
    let at = Workplace::with_namespace();
    // With metadata, for which a listing reads the record.
    let put = [
        "key",
        "put",
        "-n",
        "N",
        "k",
        "a value to find on the disk",
        "--metadata",
        "{\"a\":1}",
    ];
    at.done(put);
    at.damage(b"a value to find on the disk");
    let mut command = at.command(SERVE);
    command.stderr(File::create(at.path("log")).unwrap());
    let mut server = Server::start(command, 0);
    for _ in 0..7 {
        assert_eq!(server.bound("GET", "k", &[], b"").status, 500);
        assert_eq!(
            request(&server.binding, "GET", "/", &[("X-KV-Namespace", b"N")], b"").status,
            200
        );
    }
    assert_eq!(server.stop(), Some(0));
    let log = fs::read_to_string(at.path("log")).unwrap();
    let count = |what: &str| log.lines().filter(|line| line.contains(what)).count();
    // If the minute ends in between, a line has the number so far.
    for what in ["a store operation failed", "a listed key is damaged"] {
        let printed = count(what);
        assert!(printed == 1 || printed < 7 && count("not_printed=") > 4, "{log}");
    }
    assert!(count("met again") >= 2, "{log}");
}

#[test]
fn a_server_at_its_limit_is_not_ready_and_reads_on() {
    let at = Workplace::with_namespace();
    let server = started(&at, &["--max-disk-mib", "4", "--option", "segment_bytes=256KiB"]);
    let ready = || {
        let answer = request(&server.rest, "GET", "/readyz", &[], b"");
        (answer.status, String::from_utf8(answer.body).unwrap())
    };
    assert_eq!(ready(), (200, "ready\n".to_owned()));
    let value = vec![b'v'; 200 << 10];
    let full = (0..100).find(|number| server.bound("PUT", &format!("k{number}"), &[], &value).status == 507);
    assert!(full.is_some_and(|number| number > 2), "{full:?}");
    let (status, told) = ready();
    assert!(
        status == 503 && told.contains("no space is left for writes") && told.contains("limit"),
        "{told}"
    );
    assert_eq!(server.bound("GET", "k0", &[], b"").body, value);
    assert_eq!(request(&server.rest, "GET", "/healthz", &[], b"").status, 200);
    for number in 0..full.unwrap() {
        assert_eq!(server.bound("DELETE", &format!("k{number}"), &[], b"").status, 200);
    }
    assert_eq!(request(&server.rest, "POST", "/admin/compact", &[], b"").status, 200);
    assert_eq!(ready(), (200, "ready\n".to_owned()));
}

#[test]
fn options_of_a_store_are_chosen_for_commands_and_the_server() {
    let at = Workplace::with_namespace();
    let segments = || at.json(["stats", "--json"])["segments"].as_array().unwrap().len();
    let value = "v".repeat(3000);
    let put = |key: &str, more: &[&str]| {
        let arguments = ["key", "put", "-n", "N", key, &*value];
        at.run(arguments.into_iter().chain(more.iter().copied()))
    };
    let before = segments();
    assert!(put("a", &[]).status.success() && put("b", &[]).status.success());
    let usual = segments() - before;
    for key in ["c", "d", "e", "f"] {
        assert!(put(key, &["--option", "segment_bytes=4KiB"]).status.success());
    }
    assert!(segments() > before + 2 * usual, "{before} {usual} {}", segments());
    let mut command = at.command(["stats"]);
    command.env("EMBERCASK_OPTIONS", "segment_bytes=4KiB,read_mode=perhaps");
    let output = command.output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.code() == Some(2) && told.contains("map or pread"),
        "{told}"
    );
    for arguments in [
        &["verify"][..],
        &["stats"],
        &["compact"],
        &["salvage", "to"],
        &["serve"],
    ] {
        let told = at.fails(2, arguments.iter().copied().chain(["--option", "no_such=1"]));
        assert!(
            told.contains("options are read_mode, ring, segment_bytes"),
            "{arguments:?}: {told}"
        );
    }

    // Sealed segments are mapped, or not.
    let is_mapped = |more: &[&str]| {
        let server = started(&at, more);
        assert_eq!(server.bound("GET", "a", &[], b"").body, value.as_bytes());
        let maps = fs::read_to_string(format!("/proc/{}/maps", server.child.id())).unwrap();
        maps.lines().any(|line| line.contains(".segment"))
    };
    fs::write(
        at.path("serve.toml"),
        "options = { read_mode = \"pread\", ring = \"never\" }",
    )
    .unwrap();
    assert!(is_mapped(&["--option", "ring=never"]));
    assert!(!is_mapped(&["--option", "ring=never", "--option", "read_mode=pread"]));
    assert!(!is_mapped(&["--config", "serve.toml"]));
    assert!(
        is_mapped(&["--config", "serve.toml", "--option", "read_mode=map"]),
        "the flag counts first"
    );
}
