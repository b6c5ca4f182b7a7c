//! Writes the seed inputs of the command's and its server's targets into `corpus/`. Deterministic.
//!
//! `cargo run --manifest-path fuzz/Cargo.toml --example command_seeds`

use std::io;
use std::path::Path;

fn save(target: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join(name), bytes)
}

fn main() -> io::Result<()> {
    command()?;
    requests()
}

/// Inputs of the command.
fn command() -> io::Result<()> {
    for (name, text) in [
        ("id", &b"0123456789abcdef0123456789ABCDEF"[..]),
        ("escapes", br"a\\\n\r\t\0\x00\xFF"),
        ("no-escape", br"a\q"),
        ("lines", b"a\r\n\tb\\"),
        ("bytes", b"gr\xc3\xbc\xc3\x9fe\xff\xe2\x80\xae\x7f\x1b[31m\n"),
        ("base64", b"AAH/ \n"),
        ("json", br#"{"a": [1.50, null, "\ud83d\ude00"]}"#),
    ] {
        save("key_text", name, &[&[3, 0, 0, 1, 2, 3, 4, 5, 6][..], text].concat())?;
    }
    let pairs = r#"[{"key":"a","value":"1","expiration":4000000000},{"key":"b","value":"AAH/","base64":true,"x":1},
        {"key":"c","value":"2","expiration_ttl":60,"metadata":{"m":[1]}},{"key":"","value":"3"},{"key":"d","value":"4"}]"#;
    for (name, how, text) in [
        ("pairs", 0, pairs),
        ("cut", 0, &pairs[..120]),
        (
            "names",
            1,
            r#"["a",{"name":"b","expiration":1},{"name_base64":"AA=="}]"#,
        ),
        ("array-for-object", 1, r#"[["a"]]"#),
        ("both-names", 1, r#"[{"name":"a","name_base64":"AA=="}]"#),
        ("behind", 1, r#"["a"] 1"#),
    ] {
        save("bulk_array", name, &[&[how, 5], text.as_bytes()].concat())?;
    }
    let export = [
        r#"{"export":1,"store":"00","namespaces":null,"prefix":""}"#,
        r#"{"namespace":"N","id":"4501846b534b2d4a5d8f47f790fd834a"}"#,
        r#"{"namespace":"N","key":"a","value":"1","expiration_ms":1795689695332,"metadata":{"plan":"pro"}}"#,
        r#"{"namespace":"M","key_base64":"AAH/","value_base64":"","metadata_base64":"/w=="}"#,
        r#"{"end":true,"lines":3}"#,
    ];
    let whole = export.join("\n");
    for (name, how, text) in [
        ("whole", 4, whole.clone()),
        ("whole-into-one", 4 | 1, whole.clone()),
        ("if-absent", 2, whole.clone()),
        ("cut", 0, export[..3].join("\n")),
        ("wrong-count", 0, whole.replace("3}", "4}")),
        ("two", 4, format!("{whole}\n\n{whole}\n")),
        (
            "empty-key",
            0,
            r#"{"namespace":"N","key":"a","value":""}
{"namespace":"N","key":"","value":""}"#
                .to_owned(),
        ),
        ("array", 0, "[]".to_owned()),
        (
            "end-with-a-key",
            0,
            r#"{"end":true,"lines":0,"namespace":"N","key":"k","value":"v"}"#.to_owned(),
        ),
        (
            "default-ttl",
            4,
            r#"{"namespace":"N","default_ttl_ms":60000}
{"namespace":"M","id":null,"default_ttl_ms":1}
{"namespace":"N","key":"a","value":""}
{"namespace":"N","default_ttl_ms":0}"#
                .to_owned(),
        ),
        (
            "expired",
            0,
            r#"{"namespace":"N","key":"a","value":"","expiration_ms":1}"#.to_owned(),
        ),
    ] {
        save("import_lines", name, &[&[how, 9], text.as_bytes()].concat())?;
    }
    let lines = [5, 0, 4, 1, 0, 1, 0, 2, 0, 3, 8, 4, 3, 5, 0, 6, 6, 0, 0, 7, 0, 8];
    for cut in [0, 60, 150, 220, 300, 400] {
        for (change, note_change) in [(0, 0), (0, 1), (2, 0), (3, 0), (0, 2), (0, 3)] {
            let head = [
                &[0][..],
                &u16::to_le_bytes(cut),
                &[20, change, note_change, 4],
                &[cut as u8; 16],
                b"{\"a\"",
            ];
            let name = format!("cut-{cut}-{change}{note_change}");
            save("import_resume", &name, &[&head.concat()[..], &lines].concat())?;
        }
    }
    for n in 0..24_u8 {
        // Pseudorandom bytes.
        let bytes: Vec<u8> = (0..120_u32)
            .map(|at| (((at + 7) * (u32::from(n) + 3) * 40503) >> 8) as u8)
            .collect();
        let head = [
            &[n.wrapping_mul(16) + n % 3][..],
            &u16::to_le_bytes(u16::from(n) * 37),
            &[n.wrapping_mul(7); 8],
            &[9],
        ]
        .concat();
        save("export_resume", &format!("made-{n:02}"), &[&head[..], &bytes].concat())?;
    }
    Ok(())
}

/// Settings of the server, and requests to it.
fn requests() -> io::Result<()> {
    let shipped = include_str!("../../docs/self-hosting/embercask.toml");
    let digest = "0".repeat(64);
    let tokens = format!("[[tokens]]\nname = \"a\"\nsha256 = \"{digest}\"\nread_only = true\nnamespaces = [\"A\"]\n");
    for (name, head, text) in [
        ("shipped", &b"\0"[..], shipped),
        ("nothing", b"\0", ""),
        (
            "token",
            b"\0",
            &format!("listen = \"0.0.0.0:80\"\npage = true\n{tokens}"),
        ),
        ("open", b"\0", "listen = \"0.0.0.0:80\""),
        (
            "six",
            b"\0",
            "listen = \"[::1]:0\"\nbinding = \"unix:/run/kv\"\nbinding_for = { \"A\" = \"[::1%3]:1\" }",
        ),
        ("off", b"\0", "listen = \"off\"\nbinding = \"off\""),
        (
            "many-connections",
            b"\0",
            "max_connections = 9223372036854775807\nidle_seconds = 9223372036854775807",
        ),
        ("no-path", b"\0", "listen = \"unix:\""),
        (
            "array-for-a-token",
            b"\0",
            &format!("tokens = [[\"a\", \"{digest}\", false, [\"A\"]]]"),
        ),
        (
            "flags",
            b"\x9d\x03off\x10A=127.0.0.1:1234\x10sixteen-letters-\x02os",
            "",
        ),
    ] {
        save("server_settings", name, &[head, text.as_bytes()].concat())?;
    }
    // Face, client, method, route, id, key, query, header, body, content type.
    let key = |text: &str| [&[text.len() as u8], text.as_bytes()].concat();
    let body = |text: &str| [&(text.len() as u16).to_le_bytes()[..], text.as_bytes()].concat();
    let rest = |method: u8, route: u8, named: &[u8], usual: u8, content: &str, form: &[u8]| {
        [&[2, 7, method, route, 0][..], named, &[0, usual], &body(content), form].concat()
    };
    let (put, get) = (
        rest(1, 3, &key("k%2F1"), 1, "value", &[7]),
        rest(0, 3, &key("k%2F1"), 0, "", &[7]),
    );
    let pairs =
        r#"[{"key":"k","value":"v","metadata":[1]},{"key":"l","value":"AAH/","base64":true,"expiration_ttl":60}]"#;
    let bulk = rest(1, 7, &[], 0, pairs, &[7]);
    let many = rest(2, 10, &[], 0, r#"{"keys":["k","l","m"]}"#, &[7]);
    let list = rest(0, 2, &[], 4, "", &[7]);
    let form = rest(
        1,
        3,
        &key("f"),
        0,
        "of a form",
        &[2, 1, b'{', b'}', b' ', b' ', b' ', b' ', b' ', b' '],
    );
    let create = rest(2, 0, &[], 0, r#"{"title":"C"}"#, &[7]);
    let rename = rest(1, 1, &[], 0, r#"{"title":"D"}"#, &[7]);
    let remove = rest(3, 1, &[], 0, "", &[7]);
    let delete = rest(2, 9, &[], 0, r#"["k",{"name":"f"}]"#, &[7]);
    let bind = |how: u8, method: u8, named: &[u8], usual: u8, content: &str| {
        [&[how, 7, method][..], named, &[0, usual, 0], &body(content), &[7]].concat()
    };
    let bound_put = bind(0x20, 1, &key("bound"), 1, "value");
    let bound_get = bind(0x20, 0, &key("bound"), 3, "");
    let bound_list = bind(0, 0, &[], 4, "");
    let bound_many = bind(0x10, 2, &[], 0, r#"{"keys":["bound","x"]}"#);
    for (name, requests) in [
        ("put-get", [&put[..], &get, &list].concat()),
        ("bulk", [&bulk[..], &many, &list, &delete, &many].concat()),
        ("form", [&form[..], &list].concat()),
        ("namespaces", [&create[..], &rename, &remove, &put].concat()),
        ("bound", [&bound_put[..], &bound_get, &bound_list, &bound_many].concat()),
    ] {
        for how in 0..4_u8 {
            save(
                "server_request",
                &format!("{name}-{how}"),
                &[&[how][..], &requests].concat(),
            )?;
        }
    }
    Ok(())
}
