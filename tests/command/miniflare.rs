//! The command line: import of the local state of `wrangler dev`.

use std::path::{Path, PathBuf};

use crate::command::Workplace;
use crate::remote::Remote;
use embercask::Store;
use rusqlite::{Connection, params};

/// Ids of namespaces, and the names that workerd gives to their databases.
const SESSIONS: (&str, &str) = (
    "4501846b534b2d4a5d8f47f790fd834a",
    "599fcdb45e2e242590d93e1430f47d9bf5c49df4494ad622b24467f976fd9c5e",
);
const CACHE: (&str, &str) = (
    "CACHE",
    "6b94e5cc8647932525b3e575cb4362001e1d2a492e433724e5762f6c83dfb20b",
);

/// A namespace in the local state of a project, as miniflare writes it.
struct State {
    blobs: PathBuf,
    database: Connection,
    path: PathBuf,
}

impl State {
    fn create(state: &Path, (id, hash): (&str, &str)) -> State {
        let databases = state.join("miniflare-KVNamespaceObject");
        let blobs = state.join(id).join("blobs");
        std::fs::create_dir_all(&databases).unwrap();
        std::fs::create_dir_all(&blobs).unwrap();
        let path = databases.join(format!("{hash}.sqlite"));
        let database = Connection::open(&path).unwrap();
        database
            .execute_batch(
                "PRAGMA journal_mode = WAL;
                CREATE TABLE _mf_entries (key TEXT PRIMARY KEY, blob_id TEXT NOT NULL, expiration INTEGER, metadata TEXT);
                CREATE INDEX _mf_entries_expiration_idx ON _mf_entries(expiration);",
            )
            .unwrap();
        State { blobs, database, path }
    }

    fn put(&self, key: &str, value: &[u8], expiration_ms: Option<i64>, metadata: Option<&str>) {
        let rows: i64 = self
            .database
            .query_row("SELECT count(*) FROM _mf_entries", [], |row| row.get(0))
            .unwrap();
        let of_namespace: u64 = self
            .path
            .as_os_str()
            .as_encoded_bytes()
            .iter()
            .map(|byte| u64::from(*byte))
            .sum();
        let blob = format!("{of_namespace:016x}{rows:048x}0000019ace2d41b7");
        std::fs::write(self.blobs.join(&blob), value).unwrap();
        self.row(key, &blob, expiration_ms, metadata);
    }

    fn row(&self, key: &str, blob: &str, expiration_ms: Option<i64>, metadata: Option<&str>) {
        let insert = "INSERT OR REPLACE INTO _mf_entries VALUES (?1, ?2, ?3, ?4)";
        let row = params![key, blob, expiration_ms, metadata];
        self.database.execute(insert, row).unwrap();
    }
}

fn opened(at: &Workplace, name: &str) -> Store {
    Store::options().create(false).open(at.path(name)).unwrap()
}

/// Names of files, with their contents, below a directory.
fn files(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            all.push((path.clone(), std::fs::read(path).unwrap()));
        }
    }
    all.sort();
    all
}

#[test]
fn the_local_state_of_a_project_moves_in_one_command() {
    let at = Workplace::new();
    let project = at.path("project");
    let kv = project.join(".wrangler/state/v3/kv");
    let sessions = State::create(&kv, SESSIONS);
    let large = vec![0xfe; 3 << 20];
    sessions.put("grüße/\u{1F525}", "ä".as_bytes(), None, Some("{\"a\": 1}"));
    sessions.put("bytes", &large, Some(4_000_000_000_000), None);
    sessions.put("empty", b"", None, Some("\"\""));
    sessions.put("expired", b"v", Some(1_700_000_000_000), None);
    for n in 0..1100 {
        sessions.put(&format!("many {n:04}"), n.to_string().as_bytes(), None, None);
    }
    let cache = State::create(&kv, CACHE);
    cache.put("k", b"v", None, Some("null"));
    // A namespace that was never written to has a database without a table or without keys.
    State::create(&kv, ("unused", &"0".repeat(64)));
    std::fs::remove_dir_all(kv.join("unused")).unwrap();
    std::fs::write(
        project.join("wrangler.jsonc"),
        format!(
            "{{\n// names\n\"kv_namespaces\": [{{\"binding\": \"SESSIONS\", \"id\": \"{}\"}},],}}",
            SESSIONS.0
        ),
    )
    .unwrap();

    // `wrangler dev` is running: the last puts are in the log of the database only.
    let wal = PathBuf::from(format!("{}-wal", sessions.path.display()));
    assert!(std::fs::metadata(&wal).unwrap().len() > 0);
    let told = at.text(["import", "--miniflare", "project"]);
    assert_eq!(
        told,
        "Imported 1 keys into \"CACHE\", 1,103 keys into \"SESSIONS\". 1 had expired.\n"
    );
    sessions.put("later", b"it goes on", None, None);
    let check = |store: &Store| {
        let namespace = store.open_namespace("SESSIONS").unwrap();
        assert_eq!(format!("{:032x}", namespace.id()), SESSIONS.0);
        let get = |key: &str| namespace.get(key).unwrap().unwrap();
        assert_eq!(get("grüße/\u{1F525}").as_bytes(), "ä".as_bytes());
        assert_eq!(get("grüße/\u{1F525}").metadata(), Some(&b"{\"a\": 1}"[..]));
        assert_eq!(get("grüße/\u{1F525}").expiry_ms(), None);
        assert!(get("bytes").as_bytes() == large);
        assert_eq!(get("bytes").expiry_ms(), Some(4_000_000_000_000));
        assert_eq!(
            (get("empty").as_bytes(), get("empty").metadata()),
            (&b""[..], Some(&b"\"\""[..]))
        );
        assert_eq!(get("many 1099").as_bytes(), b"1099");
        assert!(namespace.get("expired").unwrap().is_none());
        let value = store.open_namespace("CACHE").unwrap().get("k").unwrap().unwrap();
        assert_eq!((value.as_bytes(), value.metadata()), (&b"v"[..], None));
    };
    check(&opened(&at, "store"));

    // It has ended: nothing is changed, and any directory of the state will do.
    drop((sessions, cache));
    let before = files(&project);
    for (number, directory) in [
        "project",
        "project/.wrangler/state",
        "project/.wrangler/state/v3",
        "project/.wrangler/state/v3/kv",
    ]
    .into_iter()
    .enumerate()
    {
        let store = format!("copy {number}");
        at.done(["--quiet", "--store", &store, "import", "--miniflare", directory]);
        check(&opened(&at, &store));
        assert!(files(&project) == before, "{directory}");
    }
    let told = at.text(["import", "--miniflare", "project", "--if-absent"]);
    assert!(
        told.contains("1 keys into \"SESSIONS\"") && told.contains("1,104 were there already"),
        "{told}"
    );

    // Names are chosen by the user, too.
    let renamed = format!("{}=Logged in", SESSIONS.0);
    at.done([
        "--quiet",
        "--store",
        "named",
        "import",
        "--miniflare",
        "project",
        "--name",
        &renamed,
    ]);
    assert_eq!(
        opened(&at, "named")
            .open_namespace("Logged in")
            .unwrap()
            .count()
            .unwrap(),
        1104
    );
    for (arguments, expected) in [
        (&["--name", "CACHE=SESSIONS"][..], "would both be called"),
        (&["--name", "NOBODY=x"], "no namespace with keys has the id"),
        (&["--name", "x"], "not ID=NAME"),
        (&["-n", "ALL"], "2 namespaces"),
        (&["--format", "bulk"], "cannot be used with"),
        (&["--resume"], "cannot be used with"),
    ] {
        let told = at.fails(2, ["import", "--miniflare", "project"].iter().chain(arguments).copied());
        assert!(told.contains(expected), "{told}");
    }
    std::fs::remove_dir_all(kv.join("CACHE")).unwrap();
    let told = at.fails(2, ["import", "--name", "CACHE=C", "project"]);
    assert!(told.contains("--miniflare"), "{told}");
    std::fs::create_dir(at.path("nothing")).unwrap();
    for wrong in ["nothing", "missing", "project/wrangler.jsonc"] {
        at.fails(2, ["import", "--miniflare", wrong]);
    }
    let told = at.fails(2, ["import", "project"]);
    assert!(told.contains("--miniflare"), "{told}");
}

/// A key with its value, expiry and metadata.
type Row = (&'static str, &'static [u8], Option<u64>, Option<&'static str>);

/// Copies `tests/command/wrangler-dev`: reading a database adds files to it.
fn copy_project(at: &Workplace) {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/command/wrangler-dev");
    for (path, content) in files(&project) {
        let copy = at.path("project").join(path.strip_prefix(&project).unwrap());
        std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
        std::fs::write(copy, content).unwrap();
    }
}

/// `tests/command/wrangler-dev` was written by wrangler 4.164.0 (miniflare 5.20261117.0), which was
/// then killed: the databases are almost empty without their logs. The shared memory of SQLite is
/// left out.
#[test]
fn the_state_that_wrangler_wrote_is_imported() {
    let at = Workplace::new();
    copy_project(&at);
    let told = at.text(["import", "--miniflare", "project"]);
    assert_eq!(
        told,
        "Imported 1 keys into \"CACHE\", 4 keys into \"SESSIONS\". 1 had expired.\n"
    );
    let store = opened(&at, "store");
    let namespace = store.open_namespace("SESSIONS").unwrap();
    assert_eq!(format!("{:032x}", namespace.id()), SESSIONS.0);
    let expected: [Row; 4] = [
        ("bytes", &[0, 255, 254, 1], Some(2_147_483_647_000), None),
        ("empty", b"", None, Some("\"\"")),
        (
            "grüße/\u{1F525}",
            "ä".as_bytes(),
            None,
            Some("{\"a\":1,\"text\":\"ü\"}"),
        ),
        ("replaced", b"new", None, Some("[1,2.5,null]")),
    ];
    for (key, value, expiry_ms, metadata) in expected {
        let got = namespace.get(key).unwrap().unwrap();
        assert_eq!(got.as_bytes(), value, "{key}");
        assert_eq!(got.expiry_ms(), expiry_ms, "{key}");
        assert_eq!(got.metadata(), metadata.map(str::as_bytes), "{key}");
    }
    assert_eq!(namespace.count().unwrap(), 4);
    let cache = store.open_namespace("CACHE").unwrap();
    assert_eq!(cache.get("stays").unwrap().unwrap().as_bytes(), b"v");
}

#[test]
fn the_state_is_imported_into_a_server() {
    let remote = Remote::new();
    copy_project(&remote.at);
    let output = remote.run(["import", "--miniflare", "project", "--name", "CACHE=N"]);
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(
        told.starts_with("Imported 1 keys into \"N\", 4 keys into \"SESSIONS\". 1 had expired"),
        "{told}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(remote.text(["get", "-n", "N", "stays"]), "v");
    let shown = remote.json(["get", "-n", "SESSIONS", "bytes", "--json"]);
    assert_eq!(
        (&shown["value_base64"], &shown["expiration"]),
        (&"AP/+AQ==".into(), &2_147_483_647_u64.into())
    );
    let shown = remote.json(["get", "-n", "SESSIONS", "replaced", "--json"]);
    assert_eq!(shown["metadata"], serde_json::json!([1, 2.5, null]));
}

/// The state before databases had a directory of their own; values that are missing; and files that
/// want to lead elsewhere.
#[test]
fn a_damaged_or_hostile_state_is_imported_as_far_as_it_goes() {
    let at = Workplace::new();
    let kv = at.path("kv");
    let state = State::create(&kv, CACHE);
    state.put("good", b"v", None, None);
    std::fs::write(at.path("secret"), "secret").unwrap();
    state.row("absent", &"ab".repeat(40), None, None);
    state.row("hostile", "../../../secret", None, None);
    state.row("also hostile", &at.path("secret").display().to_string(), None, None);
    state.row("no name", "", None, None);
    state.row("directory", "aa", None, None);
    state.row("link", "bb", None, None);
    std::fs::create_dir(state.blobs.join("aa")).unwrap();
    std::os::unix::fs::symlink(at.path("secret"), state.blobs.join("bb")).unwrap();
    let output = at.run(["import", "--miniflare", ".", "-n", "N"]);
    let (told, noted) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    );
    assert_eq!(told, "Imported 1 keys into \"N\". 6 had no value.\n", "{noted}");
    assert!(
        noted.contains("namespace \"N\", entry 1, key \"absent\": the file with the value is missing")
            && noted.contains("(and 5 more)"),
        "{noted}"
    );
    assert_eq!(at.text(["key", "list", "-n", "N", "--text"]), "good\n");

    let earlier = kv.join("CACHE/db.sqlite");
    let path = state.path.clone();
    drop(state);
    std::fs::rename(path, &earlier).unwrap();
    std::fs::remove_dir(kv.join("miniflare-KVNamespaceObject")).unwrap();
    at.done(["--quiet", "--store", "earlier", "import", "--miniflare", "kv"]);
    assert_eq!(
        opened(&at, "earlier").open_namespace("CACHE").unwrap().count().unwrap(),
        1
    );
    let newer = Connection::open(&earlier).unwrap();
    newer
        .execute_batch("ALTER TABLE _mf_entries RENAME TO _mf_values")
        .unwrap();
    newer.close().unwrap();
    let told = at.fails(2, ["import", "--miniflare", "kv"]);
    assert!(
        told.contains("a version of miniflare that") && told.contains("hint: "),
        "{told}"
    );
    std::fs::write(&earlier, "SQLite format 3\0 and then nothing").unwrap();
    let told = at.fails(2, ["import", "--miniflare", "kv"]);
    assert!(told.contains("db.sqlite"), "{told}");
}
