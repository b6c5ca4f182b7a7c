//! The files in `docs/self-hosting` as shipped: the configuration, the unit for systemd, and the
//! commands of the page about them. Only ports and paths differ, each substituted for a piece of
//! text that must be there. The files for workerd are tested by `tests/e2e/shipped.test.mjs`.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::command::{Workplace, ended, interrupt, wait_until};
use crate::http::{Connection, PATIENCE, SERVE, Server, TOKEN, bearer, request, started};

fn documented(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(path)).unwrap()
}

/// The text with these pieces replaced, each of which must be there exactly once.
fn with(text: &str, pieces: &[(&str, &str)]) -> String {
    pieces.iter().fold(text.to_owned(), |text, (piece, instead)| {
        assert_eq!(text.matches(piece).count(), 1, "{piece:?} in {text}");
        text.replace(piece, instead)
    })
}

/// The configuration with a store in this directory and ports chosen by the system.
fn configuration(at: &Workplace, text: &str) -> String {
    let pieces = [
        ("\"/var/lib/embercask\"", &*format!("{:?}", at.path("served"))),
        ("\"127.0.0.1:8787\"", "\"127.0.0.1:0\""),
        ("\"127.0.0.1:8788\"", "\"127.0.0.1:0\""),
    ];
    with(text, &pieces)
}

/// The configuration with the settings in its comments enabled.
fn uncommented(text: &str) -> String {
    let is_setting = |line: &&str| {
        let name = line.split(" = ").next().filter(|name| name.len() < line.len());
        line.starts_with("[[")
            || name.is_some_and(|name| {
                name.bytes()
                    .all(|byte| b"_0123456789".contains(&byte) || byte.is_ascii_lowercase())
            })
    };
    let lines = text
        .lines()
        .map(|line| line.strip_prefix("# ").filter(is_setting).unwrap_or(line));
    lines.map(|line| format!("{line}\n")).collect()
}

/// Without the environment variable that the tests set.
fn on_its_own(mut command: Command) -> Command {
    command.env_remove("EMBERCASK_STORE");
    command
}

fn puts_and_gets(server: &Server) {
    assert_eq!(server.bound("PUT", "k", &[], b"v").status, 200);
    assert_eq!(server.bound("GET", "k", &[], b"").body, b"v");
}

#[test]
fn the_configuration_serves_as_it_is_shipped() {
    let at = Workplace::with_namespace();
    std::fs::write(at.path("embercask.toml"), documented("self-hosting/embercask.toml")).unwrap();
    // Flags take precedence over the file, so it can stay unchanged.
    let mut server = started(&at, &["--config", "embercask.toml"]);
    puts_and_gets(&server);
    assert_eq!(server.stop(), Some(0));

    let other = configuration(&at, &documented("self-hosting/embercask.toml"));
    std::fs::write(at.path("embercask.toml"), other).unwrap();
    let mut server = Server::start(on_its_own(at.command(["serve", "--config", "embercask.toml"])), 0);
    assert_eq!(
        server.bound("GET", "k", &[], b"").status,
        400,
        "another store, without a namespace"
    );
    assert_eq!(server.stop(), Some(0));
    assert!(at.path("served/MANIFEST").exists());
}

#[test]
fn the_settings_that_the_configuration_shows_in_comments_are_good() {
    let at = Workplace::new();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(at.path("certificate.pem"), made.cert.pem()).unwrap();
    std::fs::write(at.path("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let mut text = uncommented(&configuration(&at, &documented("self-hosting/embercask.toml")));
    // One token after the other: the file leaves their digests open.
    let tokens = ["deployment", "dashboard"].map(|name| {
        let (token, setting) = at.token(name, "");
        let digest = setting.lines().find(|line| line.starts_with("sha256 = ")).unwrap();
        let shown = format!("name = \"{name}\"\nsha256 = \"...\"");
        text = with(&text, &[(&shown, &format!("name = \"{name}\"\n{digest}"))]);
        bearer(&token)
    });
    // A replica needs a log, and its namespaces have no limits.
    text = text
        .lines()
        .filter(|line| !line.starts_with("replica = "))
        .collect::<Vec<_>>()
        .join("\n");
    std::fs::write(at.path("token"), format!("{TOKEN}\n")).unwrap();
    let socket = at.path("socket");
    let text = with(
        &text,
        &[
            ("/run/embercask/sessions.socket", socket.to_str().unwrap()),
            (
                "/etc/embercask/certificate.pem",
                at.path("certificate.pem").to_str().unwrap(),
            ),
            ("/etc/embercask/key.pem", at.path("key.pem").to_str().unwrap()),
            ("/etc/embercask/token", at.path("token").to_str().unwrap()),
            ("/var/lib/embercask-checkpoints", at.path(".").to_str().unwrap()),
        ],
    );
    std::fs::write(at.path("embercask.toml"), text).unwrap();
    let mut server = Server::start(on_its_own(at.command(["serve", "--config", "embercask.toml"])), 1);
    assert_eq!(
        server.others,
        [format!("Binding at unix:{}, namespace SESSIONS\n", socket.display())]
    );
    let stream = UnixStream::connect(&socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut connection = Connection::on(stream);
    let [deployment, dashboard] = &tokens;
    for (method, token, status) in [
        ("PUT", Some(dashboard), 403),
        ("PUT", None, 403),
        ("PUT", Some(deployment), 200),
        ("GET", Some(dashboard), 200),
    ] {
        let headers: Vec<(&str, &[u8])> = token.iter().map(|token| ("Authorization", &token[..])).collect();
        assert_eq!(
            connection.request(method, "/k", &headers, b"v").status,
            status,
            "{method}"
        );
    }
    drop(connection);
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn the_configuration_and_the_help_show_all_settings() {
    let at = Workplace::new();
    std::fs::write(at.path("wrong.toml"), "no_such_setting = 1").unwrap();
    let told = at.fails(2, ["serve", "--config", "wrong.toml"]);
    let (_, names) = told.split_once("expected one of ").unwrap();
    let names: BTreeSet<&str> = names.split('`').skip(1).step_by(2).collect();
    assert!(names.len() >= 16 && names.contains("store"), "{told}");
    let text = uncommented(&documented("self-hosting/embercask.toml"));
    let shown = text.lines().filter_map(|line| {
        let table = line.strip_prefix("[[").and_then(|rest| rest.strip_suffix("]]"));
        // Names after a table's header are the table's.
        table.or_else(|| line.split_once(" = ").map(|(name, _)| name))
    });
    let of_tokens = ["name", "sha256", "read_only", "admin", "namespaces"];
    let shown: BTreeSet<&str> = shown.filter(|name| !of_tokens.contains(name)).collect();
    assert_eq!(shown, names);
    // A flag for each setting. `--token` gives one of the tokens; `--store` is a flag of all
    // commands.
    let help = at.text(["help", "serve"]);
    for name in names {
        let flag = match name {
            "tokens" => "--token".to_owned(),
            "options" => "--option".to_owned(),
            name => format!("--{}", name.replace('_', "-")),
        };
        assert!(help.contains(&flag), "{flag} is not in {help}");
    }
}

/// The values of a key of the unit.
fn of_unit<'a>(unit: &'a str, key: &str) -> &'a str {
    let mut values = unit
        .lines()
        .filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let value = values.next().unwrap_or_else(|| panic!("no {key} in the unit"));
    assert_eq!(values.next(), None, "{key} twice");
    value
}

#[test]
fn the_unit_starts_what_the_configuration_is_for() {
    let at = Workplace::new();
    let unit = documented("self-hosting/embercask.service");
    let text = documented("self-hosting/embercask.toml");
    let of = |key| of_unit(&unit, key);

    // The unit's command, with this binary and a file in this directory.
    let words: Vec<&str> = of("ExecStart").split(' ').collect();
    let [program, arguments @ ..] = &words[..] else {
        panic!()
    };
    assert_eq!(Path::new(program).file_name().unwrap(), "embercask");
    assert!(Path::new(program).is_absolute());
    let ["serve", "--config", config] = arguments[..] else {
        panic!("{arguments:?}")
    };
    std::fs::write(at.path("embercask.toml"), configuration(&at, &text)).unwrap();
    let placed = with(&arguments.join(" "), &[(config, "embercask.toml")]);
    let mut server = Server::start(on_its_own(at.command(placed.split(' '))), 0);
    assert_eq!(request(&server.rest, "GET", "/readyz", &[], b"").status, 200);
    // Has it read the tokens again, as systemd does: the signal must not end it.
    assert_eq!(of("ExecReload"), "/bin/kill -HUP $MAINPID");
    let hung_up = Command::new("kill")
        .args(["-HUP", &server.child.id().to_string()])
        .status();
    assert!(hung_up.unwrap().success());
    // Stops it as systemd does, which does not restart it after status 0.
    assert_eq!((of("KillSignal"), of("Restart")), ("SIGTERM", "on-failure"));
    assert_eq!(server.stop(), Some(0));

    // The configuration names its own path, and the unit says who may read it.
    assert!(
        text.lines().next().unwrap().contains(&format!("--config {config}`")),
        "{text}"
    );
    assert!(unit.contains(&format!("chown root:{} {config} && chmod 640 {config}", of("Group"))));
    assert!(unit.contains(&format!("useradd --system {}; ", of("User"))));
    assert!(documented("self-hosting-workers-kv.md").contains(config));

    // The unit permits writes to the paths in the configuration, and hides no path that it needs.
    let setting = |name: &str| {
        let text = uncommented(&text);
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
        value
            .unwrap_or_else(|| panic!("no {name} in the configuration"))
            .to_owned()
    };
    assert_eq!(of("ProtectSystem"), "strict");
    let states = ["store", "checkpoint_directory"].map(setting);
    let directories: Vec<String> = of("StateDirectory")
        .split(' ')
        .map(|name| format!("\"/var/lib/{name}\""))
        .collect();
    assert_eq!(states[..], directories);
    let socket = format!("unix:/run/{}/", of("RuntimeDirectory"));
    assert!(setting("binding_for").contains(&socket));
    assert!(documented("self-hosting-workers-kv.md").contains(&socket));
    for file in ["tls_certificate", "tls_key"] {
        assert!(setting(file).starts_with("\"/etc/"), "{file}");
    }
    assert_eq!((of("ProtectHome"), of("PrivateTmp")), ("yes", "yes"));
    for family in ["AF_INET", "AF_INET6", "AF_UNIX"] {
        assert!(
            of("RestrictAddressFamilies")
                .split(' ')
                .any(|allowed| allowed == family),
            "{family}"
        );
    }

    // Not killed while it may still finish requests, and not short of descriptors for connections.
    let number = |text: &str| text.parse::<u64>().unwrap();
    assert!(number(of("TimeoutStopSec")) > number(&setting("stop_seconds")) + 10);
    assert!(number(of("LimitNOFILE")) >= 4 * number(&setting("max_connections")));

    // The command generates the manual page that the unit names.
    let page = of("Documentation").strip_prefix("man:").unwrap().replace("(1)", ".1");
    at.done(["man", "--directory", "man1"]);
    assert!(at.path("man1").join(&page).exists(), "{page}");
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    let at = Workplace::new();
    let unit = documented("self-hosting/embercask.service");
    let program = of_unit(&unit, "ExecStart").split(' ').next().unwrap();
    let other = with(&unit, &[(program, env!("CARGO_BIN_EXE_embercask"))]);
    let verify = |text: &str| {
        std::fs::write(at.path("embercask.service"), text).unwrap();
        let mut command = Command::new("systemd-analyze");
        command.args(["verify", "--man=no"]).arg(at.path("embercask.service"));
        let spawned = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let output = ended(spawned.ok()?);
        // Exits with 0 even after warnings.
        Some(String::from_utf8(output.stderr).unwrap())
    };
    match verify(&other) {
        None => test_support::skip(
            "systemd_finds_nothing_wrong_with_the_unit",
            "there is no systemd-analyze",
        ),
        Some(told) => {
            assert_eq!(told, "");
            let told = verify(&with(&other, &[("NoNewPrivileges=", "NoNewPrivilege=")])).unwrap();
            assert!(
                told.contains("NoNewPrivilege"),
                "it finds nothing wrong with anything: {told}"
            );
        }
    }
}

/// The page's commands that start a server, with other paths and ports.
#[test]
fn the_commands_of_the_page_start_servers() {
    let at = Workplace::new();
    let page = documented("self-hosting-workers-kv.md");
    assert!(page.contains(
        "REST API at http://127.0.0.1:8787/client/v4\nBindings at http://127.0.0.1:8788, namespace by X-KV-Namespace\n"
    ));
    let commands = page.lines().filter_map(|line| line.strip_prefix("$ embercask "));
    let commands: Vec<&str> = commands
        .map(|line| line.split("  #").next().unwrap().trim_end())
        .collect();
    let [create, serve, serve_socket, token] = commands[..] else {
        panic!("{commands:?}")
    };
    let placed = |command: &str| with(command, &[("--store data ", "--store store ")]);
    at.done(placed(create).split(' '));
    assert_eq!(at.json(["namespace", "list"])[0]["title"], "SESSIONS");

    let ports = ["--listen", "127.0.0.1:0", "--binding", "127.0.0.1:0"];
    let placed_serve = placed(serve);
    let mut server = Server::start(at.command(placed_serve.split(' ').chain(ports)), 0);
    assert_eq!(server.stop(), Some(0));
    assert_eq!(SERVE[1..], ports);

    let socket = at.path("socket");
    let placed_socket = with(
        &placed(serve_socket),
        &[("/run/embercask/sessions.socket", socket.to_str().unwrap())],
    );
    let arguments = placed_socket.split(' ').chain(["--listen", "127.0.0.1:0"]);
    // The line for the socket is the second: there is no listener for all namespaces.
    let mut command = at.command(arguments);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("the socket", || UnixStream::connect(&socket).is_ok());
    let stream = UnixStream::connect(&socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(Connection::on(stream).request("PUT", "/k", &[], b"v").status, 200);
    interrupt(&child);
    let mut said = String::new();
    std::io::Read::read_to_string(child.stdout.as_mut().unwrap(), &mut said).unwrap();
    assert!(ended(child).status.success());
    assert!(
        said.ends_with(&format!("\nBinding at unix:{}, namespace SESSIONS\n", socket.display())),
        "{said}"
    );
    assert_eq!(at.text(["key", "get", "-n", "SESSIONS", "k"]), "v");

    let made = at.text(token.split(' '));
    let (_, setting) = made.split_once("\n\n").unwrap();
    assert!(
        setting.starts_with("[[tokens]]\nname = \"deployment\"\nsha256 = \""),
        "{made}"
    );
}

/// The text without what each run chooses itself: ids and ports.
fn without_choices(text: &str) -> String {
    let is_id = |part: &str| part.len() == 32 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let parts: Vec<&str> = text
        .split('"')
        .map(|part| if is_id(part) { "ID" } else { part })
        .collect();
    let text = parts.join("\"");
    let parts = text.split("127.0.0.1:");
    let parts: Vec<&str> = parts
        .map(|part| part.trim_start_matches(|digit: char| digit.is_ascii_digit()))
        .collect();
    parts.join("127.0.0.1:")
}

/// The first lines that a server prints. It is stopped then.
fn printed_by_server(mut command: Command, lines: usize) -> String {
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let printed = stdout.lines().take(lines).map(|line| line.unwrap() + "\n").collect();
    interrupt(&child);
    assert!(ended(child).status.success());
    printed
}

#[test]
fn the_commands_of_the_readme_print_what_it_shows() {
    let at = Workplace::new();
    let readme = documented("../README.md");
    assert!(readme.contains("\n$ export EMBERCASK_STORE=data\n"));
    let blocks = readme
        .split("```console\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next());
    let shown = blocks.flat_map(|block| block.split("$ ").filter(|shown| shown.starts_with("embercask ")));
    let mut commands = Vec::new();
    for (line, expected) in shown.map(|shown| shown.split_once('\n').unwrap()) {
        let words = shlex::split(line).unwrap();
        let mut command = at.command(words[1..].iter().map(String::as_str));
        command.env("EMBERCASK_STORE", "data");
        let is_server = words.iter().any(|word| word == "serve");
        let printed = if is_server {
            command.args(&SERVE[1..]);
            printed_by_server(command, expected.lines().count())
        } else {
            let output = ended(command.stdout(Stdio::piped()).spawn().unwrap());
            assert!(output.status.success(), "{line}");
            String::from_utf8(output.stdout).unwrap()
        };
        assert_eq!(without_choices(&printed), without_choices(expected), "{line}");
        commands.push(if is_server {
            "serve".to_owned()
        } else {
            words[1].clone()
        });
    }
    assert_eq!(commands, ["namespace", "key", "serve"]);
}

/// Its log is away: what is in the store is served all the same.
#[test]
#[cfg(feature = "replica")]
fn the_configuration_of_a_replica_serves_without_its_log() {
    let at = Workplace::with_namespace();
    at.done(["key", "put", "-n", "N", "k", "v"]);
    let store = at.store();
    embercask_replica::state::init(&store, 1).unwrap();
    store.close().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let certificate = at.path("certificate.pem");
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    let mut text = documented("self-hosting/replica.toml");
    for host in ["10.0.0.1", "10.0.0.2", "10.0.0.3"] {
        text = text.replace(host, "127.0.0.1");
    }
    // Nothing listens there; and this server needs no certificate of its own.
    text = text
        .replace(":4222", ":1")
        .replace("/etc/nats/ca.pem", certificate.to_str().unwrap());
    let lines = text
        .lines()
        .filter(|line| !line.starts_with("tls_") && !line.starts_with("token_file"));
    std::fs::write(at.path("replica.toml"), lines.collect::<Vec<_>>().join("\n")).unwrap();
    let mut server = started(&at, &["--config", "replica.toml"]);
    assert_eq!(server.bound("GET", "k", &[], b"").body, b"v");
    assert_eq!(
        server
            .bound("GET", "k", &[("X-Embercask-Min-Position", b"1")], b"")
            .status,
        503
    );
    let ready = crate::http::request(&server.rest, "GET", "/readyz", &[], b"");
    assert!(
        ready.status == 503 && String::from_utf8_lossy(&ready.body).contains("not reached the log"),
        "{ready:?}"
    );
    assert_eq!(server.stop(), Some(0));
}
