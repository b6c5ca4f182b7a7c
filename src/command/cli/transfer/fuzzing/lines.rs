//! A second reader of the lines of an export, by `docs/command-line.md`, without serde.

use crate::common::fuzzing::Kept;
use crate::common::fuzzing::json::{self, Node, Others, Value, Wrong};

/// The second reader cannot tell.
pub(super) struct Unclear;

#[derive(Debug)]
pub(super) enum Line {
    Header,
    End {
        lines: u64,
    },
    Namespace {
        name: String,
        id: Option<u128>,
        default_ttl_ms: Option<u64>,
    },
    Key {
        namespace: Option<String>,
        key: Vec<u8>,
        kept: Kept,
    },
}

const OF_HEADER: [&str; 5] = ["export", "store", "namespaces", "prefix", "prefix_base64"];
const OF_END: [&str; 2] = ["end", "lines"];
const OF_NAMESPACE: [&str; 3] = ["namespace", "id", "default_ttl_ms"];
const OF_KEY: [&str; 8] = [
    "namespace",
    "key",
    "key_base64",
    "value",
    "value_base64",
    "expiration_ms",
    "metadata",
    "metadata_base64",
];

/// The meaning of a line; None if it is wrong.
pub(super) fn read(line: &[u8]) -> Result<Option<Line>, Unclear> {
    match json::parse(line) {
        Err(Wrong::TooDeep) => Err(Unclear),
        Err(Wrong::Syntax) => Ok(None),
        Ok(node) => Ok(meaning(&node)),
    }
}

fn meaning(node: &Node<'_>) -> Option<Line> {
    let all = [&OF_HEADER[..], &OF_END, &OF_NAMESPACE, &OF_KEY].concat();
    let members = node.members(|name| all.contains(&name), Others::AreWrong)?;
    let given: Vec<&str> = all
        .iter()
        .copied()
        .filter(|name| members.get(name).is_some_and(|node| !matches!(node.value, Value::Null)))
        .collect();
    // Wrong types are errors in any line.
    let texts = ["store", "prefix", "prefix_base64", "id", "namespace"];
    for name in texts {
        members.text(name)?;
    }
    members.optional("namespaces", Node::texts)?;
    let export = members.optional("export", |node| node.number()?.parse::<u32>().ok())?;
    let (end, lines) = (members.optional("end", Node::bool)?, members.u64("lines")?);
    let texts = ["key", "key_base64", "value", "value_base64", "metadata_base64"];
    for name in texts {
        members.text(name)?;
    }
    let (metadata, expiry_ms) = (members.raw("metadata")?, members.u64("expiration_ms")?);
    let default_ttl_ms = members.u64("default_ttl_ms")?;

    let are_all = |known: &[&str]| given.iter().all(|name| known.contains(name));
    if given.contains(&"export") {
        return (export == Some(1) && are_all(&OF_HEADER)).then_some(Line::Header);
    }
    if given.iter().any(|name| OF_END.contains(name)) {
        let is_end = end == Some(true) && are_all(&OF_END);
        return lines.filter(|_| is_end).map(|lines| Line::End { lines });
    }
    let namespace = members.text("namespace")?;
    if are_all(&OF_NAMESPACE) {
        let id = match members.text("id")? {
            Some(id) => Some(parse_id(&id)?),
            None => None,
        };
        let namespace = namespace.filter(|_| default_ttl_ms != Some(0));
        return namespace.map(|name| Line::Namespace {
            name,
            id,
            default_ttl_ms,
        });
    }
    let either = |name: &str, text: Option<Vec<u8>>| {
        let base64 = members.text(&format!("{name}_base64"))?;
        match (text, base64) {
            (Some(_), Some(_)) => None,
            (None, Some(base64)) => json::base64(&base64).map(Some),
            (text, None) => Some(text),
        }
    };
    let bytes = |name: &str| members.text(name).map(|text| text.map(String::into_bytes));
    let kept = Kept {
        value: either("value", bytes("value")?)??,
        expiry_ms,
        metadata: either("metadata", metadata)?,
    };
    let key = either("key", bytes("key")?)??;
    are_all(&OF_KEY).then_some(Line::Key { namespace, key, kept })
}

fn parse_id(text: &str) -> Option<u128> {
    let is_id = text.len() == 32 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    u128::from_str_radix(text, 16).ok().filter(|_| is_id)
}
