//! `docs/public-interface.md` names a test for each public item that fails if the item does
//! nothing. The public items are read from `src`, which rustfmt keeps in a shape that a few rules
//! about line starts can parse.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The Rust files below a folder, except those of the command and the fuzz targets.
fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    for path in entries {
        let apart = ["command", "fuzzing", "replica"].map(|name| root().join("src").join(name));
        if path.is_dir() && !apart.contains(&path) {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|end| end == "rs") {
            files.push(path);
        }
    }
}

/// The identifier at the start of a text.
pub(crate) fn word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
    &text[..end.unwrap_or(text.len())]
}

/// The rest of the line after one of these prefixes.
fn after<'a>(line: &'a str, beginnings: &[&str]) -> Option<&'a str> {
    beginnings.iter().find_map(|beginning| line.strip_prefix(beginning))
}

/// Names of types, traits, functions and constants that users can refer to.
fn exported() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for file in [
        "src/lib.rs",
        "src/store/mod.rs",
        "src/repair/mod.rs",
        "src/storage/mod.rs",
    ] {
        let text = read(&root().join(file));
        for statement in text.split("\npub use ").skip(1) {
            let statement = statement.split(';').next().unwrap();
            assert!(!statement.contains(" as "), "{file} renames an export: {statement}");
            let listed = match statement.split_once('{') {
                Some((_, list)) => list.trim_end().trim_end_matches('}'),
                None => statement.rsplit("::").next().unwrap(),
            };
            let listed = listed.split(',').map(str::trim).filter(|name| !name.is_empty());
            // Modules exported by `*` are read here too.
            let listed: Vec<_> = listed.filter(|name| *name != "*" || assert_read(statement)).collect();
            names.extend(listed.into_iter().map(str::to_owned));
        }
        let own = text.lines().filter_map(|line| after(line, &ITEMS));
        if file != "src/lib.rs" {
            names.extend(own.map(|rest| word(rest).to_owned()));
        }
    }
    names
}

fn assert_read(statement: &str) -> bool {
    assert!(
        ["store::*", "repair::*"].contains(&statement),
        "the exports of {statement} are not read"
    );
    false
}

const ITEMS: [&str; 8] = [
    "pub struct ",
    "pub enum ",
    "pub trait ",
    "pub fn ",
    "pub async fn ",
    "pub const fn ",
    "pub const ",
    "pub type ",
];

/// What a line at the outermost level of a file opens, up to the next `}` at that level.
enum Block {
    None,
    Impl(String),
    Struct(String),
    Enum(String),
    Trait(String),
}

/// All public functions, methods, constants, fields and variants, as `Type::name` or `name`.
fn public_items() -> BTreeSet<String> {
    let names = exported();
    let mut files = Vec::new();
    rust_files(&root().join("src"), &mut files);
    let mut items = BTreeSet::new();
    for path in files {
        let text = read(&path);
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let (mut block, mut hidden) = (Block::None, false);
        for line in text.lines() {
            if line == "}" {
                block = Block::None;
            }
            let opens = line.ends_with('{');
            if let Some(rest) = after(line, &["pub fn ", "pub async fn ", "pub const fn ", "pub const "]) {
                let name = word(rest);
                items.extend(names.contains(name).then(|| name.to_owned()));
                continue;
            }
            if let Some(rest) = line.strip_prefix("impl").filter(|_| opens) {
                // After the generic parameters of the block itself.
                let rest = if rest.starts_with('<') {
                    rest.split_once("> ").map_or(rest, |(_, rest)| rest)
                } else {
                    rest
                };
                let is_of_trait = rest.contains(" for ");
                block = if is_of_trait {
                    Block::None
                } else {
                    Block::Impl(word(rest.trim_start()).to_owned())
                };
                continue;
            }
            type Make = fn(String) -> Block;
            let kinds: [(&str, Make); 3] = [
                ("pub struct ", Block::Struct),
                ("pub enum ", Block::Enum),
                ("pub trait ", Block::Trait),
            ];
            let made = kinds
                .iter()
                .find_map(|(begin, make)| Some(make(word(line.strip_prefix(begin)?).to_owned())));
            if let Some(made) = made.filter(|_| opens) {
                block = made;
                continue;
            }
            let Some(inner) = line
                .strip_prefix("    ")
                .filter(|inner| !inner.starts_with([' ', '/', '}', ')']))
            else {
                continue;
            };
            if inner.starts_with('#') {
                hidden |= inner == "#[doc(hidden)]";
                continue;
            }
            let method = after(inner, &["pub fn ", "pub async fn ", "pub const fn ", "pub const "]);
            let found = match &block {
                Block::Impl(name) => method.map(|rest| (name, rest)),
                Block::Trait(name) => inner.strip_prefix("fn ").map(|rest| (name, rest)),
                Block::Enum(name) => inner.starts_with(char::is_uppercase).then_some((name, inner)),
                Block::Struct(name) => inner.strip_prefix("pub ").map(|rest| (name, rest)),
                Block::None => {
                    let nowhere = method.filter(|_| !text.contains("    mod "));
                    assert!(nowhere.is_none(), "{}: whose is `{line}`?", path.display());
                    None
                }
            };
            let shown = found.filter(|(name, _)| !std::mem::take(&mut hidden) && names.contains(*name));
            items.extend(shown.map(|(name, rest)| format!("{name}::{}", word(rest))));
        }
    }
    items
}

/// The body of a test, from its attribute to its end; None if the file has no such test.
pub(crate) fn test_body(text: &str, name: &str) -> Option<String> {
    let begin = format!("fn {name}(");
    let lines: Vec<_> = text.lines().collect();
    let at = lines.iter().position(|line| line.trim_start().starts_with(&begin))?;
    let attributes = lines[..at]
        .iter()
        .rev()
        .take_while(|line| line.trim_start().starts_with("#["));
    if !attributes.into_iter().any(|line| line.trim() == "#[test]") {
        return None;
    }
    let indent = &lines[at][..lines[at].len() - lines[at].trim_start().len()];
    let end = format!("{indent}}}");
    let body = lines[at + 1..].iter().take_while(|line| **line != end);
    Some(body.map(|line| format!("{line}\n")).collect())
}

pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
    words.filter(|word| !word.is_empty())
}

/// The helpers in a file, with their names: functions, types and their implementations, and tables.
fn helpers(text: &str) -> Vec<(&str, String)> {
    let mut helpers = Vec::new();
    let mut lines = text.lines();
    let mut is_test = false;
    while let Some(line) = lines.next() {
        is_test |= line == "#[test]";
        if !line.ends_with(['{', '(', '[']) || !line.starts_with(char::is_alphabetic) {
            continue;
        }
        let end = if line.ends_with('[') { "];" } else { "}" };
        let body = lines
            .by_ref()
            .take_while(|line| *line != end)
            .map(|line| format!("{line}\n"))
            .collect();
        let behind = |keyword: &str| Some(word(line.split_once(keyword)?.1));
        let name = if line.starts_with("impl") {
            behind(" for ").or_else(|| behind("impl "))
        } else {
            behind("fn ").or_else(|| behind("const "))
        };
        if let Some(name) = name.filter(|_| !std::mem::take(&mut is_test)) {
            helpers.push((name, body));
        }
    }
    helpers
}

/// The body of a test, and the helpers it uses, directly or indirectly.
pub(crate) fn used_by(text: &str, body: &str) -> Vec<String> {
    let helpers = helpers(text);
    let mut used = vec![body.to_owned()];
    let mut known = BTreeSet::new();
    let mut at = 0;
    while let Some(next) = used.get(at).cloned() {
        for (helper, body) in &helpers {
            if words(&next).any(|word| word == *helper) && known.insert(body) {
                used.push(body.clone());
            }
        }
        at += 1;
    }
    used
}

/// Whether a test, or a helper it uses, names the item.
fn mentions(text: &str, body: &str, name: &str) -> bool {
    let used = used_by(text, body);
    used.iter().any(|text| words(text).any(|word| word == name))
}

/// The rows of the tables: item, path and test.
pub(crate) fn rows(document: &str) -> Vec<(String, String, String)> {
    let mut rows = Vec::new();
    for line in document.lines().filter(|line| line.starts_with("| `")) {
        let quoted: Vec<_> = line.split('`').skip(1).step_by(2).collect();
        let [items @ .., path, test] = &quoted[..] else {
            panic!("{line}")
        };
        assert!(!items.is_empty(), "{line}");
        rows.extend(
            items
                .iter()
                .map(|item| (item.to_string(), path.to_string(), test.to_string())),
        );
    }
    rows
}

#[test]
fn every_public_item_has_a_test_that_is_there_and_uses_it() {
    let document = read(&root().join("docs/public-interface.md"));
    let public = public_items();
    assert!(public.len() > 380, "only {} public items found", public.len());
    for known in [
        "Store::open",
        "Options::waste_ceiling",
        "Clock::wall_ms",
        "Durability::Os",
        "Stats::keys",
        "salvage",
    ] {
        assert!(public.contains(known), "{known} was not found");
    }
    let mut wrong = Vec::new();
    let mut files = BTreeMap::new();
    let mut named = BTreeSet::new();
    for (item, path, test) in rows(&document) {
        if item.contains(' ') {
            // A flag, see `command`.
            continue;
        }
        if !named.insert(item.clone()) {
            wrong.push(format!("{item} is named twice"));
        }
        if !public.contains(&item) {
            wrong.push(format!("{item} is not public"));
        }
        let file = root().join(&path);
        if !file.is_file() {
            wrong.push(format!("{item}: there is no {path}"));
            continue;
        }
        let text = files.entry(path.clone()).or_insert_with(|| read(&file));
        match test_body(text, &test) {
            None => wrong.push(format!("{item}: {path} has no test `{test}`")),
            Some(body) if !mentions(text, &body, item.rsplit("::").next().unwrap()) => {
                wrong.push(format!("{item} is not in the test `{test}` of {path}"));
            }
            Some(_) => {}
        }
    }
    wrong.extend(
        public
            .difference(&named)
            .map(|item| format!("{item} has no test in the table")),
    );
    assert!(wrong.is_empty(), "docs/public-interface.md:\n{}", wrong.join("\n"));
}
