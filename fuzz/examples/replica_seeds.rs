//! Writes the seed inputs of the target for entries of the log of replicas into `corpus/`.
//! Deterministic.
//!
//! `cargo run --manifest-path fuzz/Cargo.toml --example replica_seeds`

use std::error::Error;
use std::path::Path;

use embercask_replica::entry::{Body, Conditions, Entry, Header, Lifetime, Operation, Tags, encode_operations, upload};

const AS_IT_IS: u8 = 0;
const FRAMED: u8 = 1;
const BODY: u8 = 2;
const COMPOSED: u8 = 3;

fn save(name: &str, mode: u8, bytes: &[u8]) -> std::io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/replica_entry");
    std::fs::create_dir_all(&folder)?;
    // Which bit is flipped, and where it is cut.
    std::fs::write(folder.join(name), [&[mode, 123, 1, 70, 0][..], bytes].concat())
}

fn main() -> Result<(), Box<dyn Error>> {
    let header = Header {
        cluster: 0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100,
        writer: 7,
        counter: 3,
        sent_ms: 1_800_000_000_000,
    };
    for (name, operations) in operations() {
        let body = encode_operations(&operations)?;
        save(&format!("{name}-body"), BODY, &body)?;
        let bytes = Entry {
            header,
            body: Body::Operations(operations),
        }
        .encode()?;
        save(name, AS_IT_IS, &bytes)?;
        // Kind, and what stands between the first 8 bytes and the checksum.
        let (kind, framed) = (bytes[5], &bytes[8..bytes.len() - 4]);
        save(&format!("{name}-framed"), FRAMED, &[&[kind], framed].concat())?;
    }
    let mut bodies = upload(9, &b"a value in one part".as_slice().into())?;
    bodies.extend([
        Body::Beat {
            position: 12,
            digest: [5; 16],
        },
        Body::Genesis,
    ]);
    for (name, body) in ["part", "commit", "beat", "genesis"].into_iter().zip(bodies) {
        save(name, AS_IT_IS, &Entry { header, body }.encode()?)?;
    }
    for kind in 0..6 {
        let numbers: Vec<u8> = (0..200_u8).map(|number| number.wrapping_mul(37)).collect();
        save(
            &format!("composed-{kind}"),
            COMPOSED,
            &[&numbers[..48], &[kind], &numbers[48..]].concat(),
        )?;
    }
    Ok(())
}

fn operations() -> Vec<(&'static str, Vec<Operation>)> {
    let id = 11;
    let put = |metadata: Option<&'static str>, lifetime, conditions| Operation::Put {
        namespace: id,
        key: "user-123".into(),
        value: "logged-in".into(),
        metadata: metadata.map(Into::into),
        lifetime,
        conditions,
    };
    let none = Conditions::default;
    let if_match = Conditions {
        if_match: Some(Tags::These(vec![1, 2])),
        if_none_match: None,
    };
    let if_absent = Conditions {
        if_match: None,
        if_none_match: Some(Tags::Any),
    };
    let delete = Operation::Delete {
        namespace: id,
        key: "user-123".into(),
        conditions: if_match.clone(),
    };
    let name = "SESSIONS".to_owned();
    vec![
        ("put", vec![put(None, Lifetime::Default, none())]),
        (
            "several",
            vec![
                put(Some("{}"), Lifetime::After(60_000), if_match),
                put(None, Lifetime::At(1_800_000_060_000), if_absent),
                put(None, Lifetime::Forever, none()),
                delete,
            ],
        ),
        ("create", vec![Operation::CreateNamespace { id, name: name.clone() }]),
        ("rename", vec![Operation::RenameNamespace { id, name }]),
        ("drop", vec![Operation::DropNamespace { id }]),
        (
            "default-ttl",
            vec![Operation::SetDefaultTtl {
                namespace: id,
                ttl_ms: Some(60_000),
            }],
        ),
    ]
}
