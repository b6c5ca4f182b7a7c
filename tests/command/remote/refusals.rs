//! Who may do what on a server, and which servers a command talks to.

use super::Remote;
use crate::command::{Workplace, wait_until};
use crate::http::{SERVE, Server, TOKEN, started};

#[test]
fn a_token_is_sent_and_never_shown() {
    let at = Workplace::with_namespace();
    let mut command = at.command(SERVE);
    command.env("EMBERCASK_TOKEN", TOKEN);
    let server = Server::start(command, 0);
    let url = format!("http://{}", server.rest);
    let list = ["--url", &url, "key", "list", "-n", "N"];
    let told = at.fails(5, list);
    assert!(
        told.contains("Authentication error") && told.contains("EMBERCASK_TOKEN"),
        "{told}"
    );
    // A newline at the end of the file is not part of the token.
    for (file, content, status) in [
        ("good", format!("{TOKEN}\n"), 0),
        ("wrong", "another-token-as-long".to_owned(), 5),
        ("two", format!("{TOKEN} more"), 2),
        ("none", "\n".to_owned(), 2),
    ] {
        std::fs::write(at.path(file), &content).unwrap();
        let output = at.run(list.iter().copied().chain(["--token-file", file]));
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{file}: {told}");
        assert!(!told.contains(content.trim()) || content.trim().is_empty(), "{told}");
        assert!(!told.contains(TOKEN), "{told}");
    }
    let mut command = at.command(list);
    command.env("EMBERCASK_TOKEN", TOKEN);
    assert!(command.output().unwrap().status.success());
    at.fails(2, list.iter().copied().chain(["--token-file", "absent"]));
}

#[test]
fn a_token_opens_its_namespaces_only() {
    let at = Workplace::with_namespace();
    at.done(["namespace", "create", "M"]);
    let made = |name: &str, more: &str| {
        let (token, setting) = at.token(name, more);
        std::fs::write(at.path(name), token).unwrap();
        setting
    };
    let settings = [
        made("reader", "read_only = true"),
        made("scoped", "namespaces = [\"N\"]"),
    ]
    .concat();
    std::fs::write(at.path("serve.toml"), settings).unwrap();
    let m = at.id_of("M");
    let server = started(&at, &["--config", "serve.toml"]);
    let url = format!("http://{}", server.rest);
    let run = |token: &str, line: &[&str]| {
        let remote = ["--url", &url, "--token-file", token];
        let output = at.run(remote.iter().chain(line).copied());
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(run("scoped", &["key", "put", "-n", "N", "k", "v"]).0, 0);
    assert_eq!(run("reader", &["key", "get", "-n", "N", "k"]).0, 0);
    let (status, told) = run("reader", &["key", "put", "-n", "N", "k", "v"]);
    assert!(status == 5 && told.contains("only for reading"), "{told}");
    // Not listed, so not found by its name; by its id it is refused.
    assert_eq!(run("scoped", &["key", "get", "-n", "M", "k"]).0, 1);
    assert_eq!(run("scoped", &["key", "put", "--namespace-id", &m, "k", "v"]).0, 5);
    assert_eq!(run("scoped", &["namespace", "create", "X"]).0, 5);
    // An import into a namespace that the token does not cover.
    std::fs::write(
        at.path("lines"),
        "{\"namespace\":\"M\",\"key\":\"k\",\"value\":\"v\"}\n",
    )
    .unwrap();
    assert_eq!(run("scoped", &["import", "lines"]).0, 5);
    assert_eq!(run("scoped", &["export", "-", "-n", "N"]).0, 0);
}

#[test]
fn tls_is_spoken_and_certificates_are_checked() {
    let at = Workplace::with_namespace();
    let mut parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    // As `openssl req -x509` makes them.
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = parameters.self_signed(&key).unwrap();
    std::fs::write(at.path("certificate.pem"), certificate.pem()).unwrap();
    std::fs::write(at.path("key.pem"), key.serialize_pem()).unwrap();
    let another = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(at.path("another.pem"), another.cert.pem()).unwrap();
    std::fs::write(at.path("nothing.pem"), "").unwrap();
    let server = started(&at, &["--tls-certificate", "certificate.pem", "--tls-key", "key.pem"]);
    let (_, port) = server.rest.rsplit_once(':').unwrap();
    let [good, other_name] = ["localhost", "127.0.0.1"].map(|host| format!("https://{host}:{port}"));
    let line = |url: &str, file: &str| {
        let output = at.run([
            "--quiet",
            "--url",
            url,
            "--ca-file",
            file,
            "key",
            "list",
            "-n",
            "N",
            "--count",
        ]);
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(line(&good, "certificate.pem"), (0, String::new()));
    let (status, told) = line(&good, "another.pem");
    assert!(
        status == 5 && told.contains("the certificate of the server is not accepted"),
        "{told}"
    );
    let (status, told) = line(&other_name, "certificate.pem");
    assert!(status == 5 && told.contains("another host"), "{told}");
    for file in ["nothing.pem", "absent.pem"] {
        assert_eq!(line(&good, file).0, 2, "{file}");
    }
    let plain = format!("http://localhost:{port}");
    at.fails(
        2,
        ["--url", &plain, "--ca-file", "certificate.pem", "namespace", "list"],
    );
    let (status, told) = line("https://localhost:1", "certificate.pem");
    assert!(
        status == 5 && told.contains("cannot reach https://localhost:1"),
        "{told}"
    );
}

#[test]
fn a_store_or_a_server_is_chosen_and_never_both() {
    let remote = Remote::new();
    let local = Workplace::new();
    local.done(["namespace", "create", "LOCAL"]);
    let run = |line: &[&str], url: Option<&str>, store: Option<&str>| {
        let mut command = local.command(line.iter().copied());
        command.env_remove("EMBERCASK_STORE");
        command.envs(url.map(|url| ("EMBERCASK_URL", url)));
        command.envs(store.map(|store| ("EMBERCASK_STORE", store)));
        let output = command.output().unwrap();
        let told = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(told).unwrap())
    };
    let (url, list) = (remote.url.as_str(), ["namespace", "list"]);
    for (flags, in_url, in_store, status, shown) in [
        (&[][..], Some(url), None, 0, "\"N\""),
        (&["--url", url], None, Some("store"), 0, "\"N\""),
        (&["--store", "store"], Some(url), None, 0, "\"LOCAL\""),
        (&[], None, Some("store"), 0, "\"LOCAL\""),
        (
            &[],
            Some(url),
            Some("store"),
            2,
            "both EMBERCASK_STORE and EMBERCASK_URL",
        ),
        (&[], Some(""), Some("store"), 0, "\"LOCAL\""),
        (&["--store", "store", "--url", url], None, None, 2, "--store and --url"),
        (
            &["--token-file", "x"],
            None,
            Some("store"),
            2,
            "--token-file works only with --url",
        ),
        (
            &["--ca-file", "x"],
            None,
            Some("store"),
            2,
            "--ca-file works only with --url",
        ),
        (
            &["--account", "x"],
            None,
            Some("store"),
            2,
            "--account works only with --url",
        ),
        (
            &["--option", "ring=never"],
            Some(url),
            None,
            2,
            "--option does not work with --url",
        ),
        (
            &["--url", url, "--local"],
            None,
            None,
            2,
            "--local does not work with --url",
        ),
        (&["--account", "x"], Some(url), None, 0, "\"N\""),
    ] {
        for flags_first in [true, false] {
            let line = if flags_first {
                [flags, &list[..]].concat()
            } else {
                [&list[..], flags].concat()
            };
            let (found, told) = run(&line, in_url, in_store);
            assert!(found == status && told.contains(shown), "{line:?}: {found} {told}");
        }
    }
    // Commands that need files take the store, whatever the environment says of servers.
    let (status, told) = run(&["--store", "store", "verify"], Some(url), None);
    assert_eq!(status, 0, "{told}");
    let (status, told) = run(&["stats"], Some(url), None);
    assert!(
        status == 2 && told.contains("--store, on the machine of the server"),
        "{told}"
    );
    for command in ["stats", "verify", "compact", "bench"] {
        let (status, told) = run(&["--url", url, command], None, None);
        assert!(
            status == 2 && told.contains("--url works with key"),
            "{command}: {told}"
        );
    }
}

#[cfg(unix)]
#[test]
fn a_unix_socket_is_an_address_too() {
    use std::io::{BufRead, BufReader};

    let at = Workplace::with_namespace();
    let mut command = at.command(["serve", "--listen", "unix:rest.socket", "--binding", "127.0.0.1:0"]);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    // Kept open: the server ends if what it prints cannot be read.
    let mut printed = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    printed.read_line(&mut line).unwrap();
    wait_until("the socket", || at.path("rest.socket").exists());
    at.done(["--url", "unix:rest.socket", "key", "put", "-n", "N", "k", "v"]);
    assert_eq!(
        at.done(["--url", "unix:rest.socket", "key", "get", "-n", "N", "k"]),
        b"v"
    );
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn an_address_that_is_none_is_refused() {
    let at = Workplace::new();
    for url in [
        "localhost:8787",
        "127.0.0.1:8787",
        "http://user:hidden@localhost",
        "unix:",
        "http://localhost/?a",
    ] {
        let told = at.fails(2, ["--url", url, "namespace", "list"]);
        assert!(told.contains("--url") && !told.contains("hidden"), "{url}: {told}");
    }
}
