//! `docs/public-interface.md` names a test for each flag of the command and each setting in the
//! server's file.

use std::collections::{BTreeMap, BTreeSet};

use crate::public_interface::interface::{read, root, rows, test_body, used_by, word, words};

/// What the files that declare flags say, without their tests.
fn declarations() -> Vec<String> {
    let directory = root().join("src/command/cli/arguments");
    let files = std::fs::read_dir(directory).expect("the directory of the flags");
    let mut files: Vec<_> = files.map(|file| file.expect("a file of flags").path()).collect();
    files.push(root().join("src/command/server/arguments.rs"));
    files.sort();
    let declared = files.iter().map(|path| read(path));
    declared
        .map(|text| text.split("#[cfg(test)]").next().unwrap().to_owned())
        .collect()
}

/// The flags in `src/command/cli/arguments` and of `serve` as `Type --flag`, each with all its
/// spellings.
fn flags() -> BTreeMap<String, Vec<String>> {
    let text = declarations();
    let mut flags = BTreeMap::new();
    let (mut group, mut attribute) = (String::new(), String::new());
    let mut is_attribute = false;
    for line in text.iter().flat_map(|text| text.lines()) {
        let inner = line.trim();
        if let Some(rest) = ["pub(crate) struct ", "pub(crate) enum "]
            .iter()
            .find_map(|begin| line.strip_prefix(begin))
        {
            group = word(rest).to_owned();
        } else if line.starts_with("    ")
            && !line.starts_with("     ")
            && inner.starts_with(char::is_uppercase)
            && inner.ends_with('{')
        {
            // A variant with its own flags.
            group = format!("{}::{}", group.split("::").next().unwrap(), word(inner));
        }
        is_attribute |= inner.starts_with("#[arg(");
        if is_attribute {
            attribute.push_str(inner);
            is_attribute = !inner.ends_with(")]");
            continue;
        }
        let field = inner.strip_prefix("pub(crate) ").unwrap_or(inner);
        let field = field.split_once(": ").filter(|(name, _)| word(name) == *name);
        let (Some((name, _)), false) = (field, inner.starts_with("//")) else {
            continue;
        };
        let said = std::mem::take(&mut attribute);
        if !words(&said).any(|word| word == "long") {
            continue;
        }
        let long = format!("--{}", name.replace('_', "-"));
        let mut forms = vec![long.clone()];
        if let Some((_, letter)) = said.split_once("short = '") {
            forms.push(format!("-{}", &letter[..1]));
        } else if words(&said).any(|word| word == "short") {
            forms.push(format!("-{}", &name[..1]));
        }
        if let Some((_, alias)) = said.split_once("visible_alias = \"") {
            forms.push(format!("--{}", alias.split('"').next().unwrap()));
        }
        assert!(
            flags.insert(format!("{group} {long}"), forms).is_none(),
            "{group} has {long} twice"
        );
    }
    flags
}

/// The settings of a settings file, as `serve.toml name`.
fn settings() -> BTreeMap<String, Vec<String>> {
    let text = read(&root().join("src/command/server/settings.rs"));
    let (_, fields) = text.split_once("struct File {\n").expect("settings of a file");
    let fields = fields
        .lines()
        .take_while(|line| *line != "}")
        .map(|line| word(line.trim()).to_owned());
    fields.map(|name| (format!("serve.toml {name}"), vec![name])).collect()
}

/// Whether a text contains this, not only as part of a longer word.
fn has(text: &str, form: &str) -> bool {
    // In a string literal, a line break would look like a letter.
    let text = text.replace("\\n", " ");
    let goes_on = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
    text.match_indices(form)
        .any(|(at, _)| !text[at + form.len()..].starts_with(goes_on) && !text[..at].ends_with(goes_on))
}

#[test]
fn every_flag_and_setting_has_a_test_that_is_there_and_uses_it() {
    let mut known = flags();
    assert!(known.len() > 70, "only {} flags found", known.len());
    assert_eq!(known["Target --namespace"], ["--namespace", "-n", "--binding"]);
    known.extend(settings());
    assert!(known.contains_key("serve.toml idle_seconds"));
    let mut wrong = Vec::new();
    let mut named = BTreeSet::new();
    for (item, path, test) in rows(&read(&root().join("docs/public-interface.md"))) {
        if !item.contains(' ') {
            continue;
        }
        if !named.insert(item.clone()) {
            wrong.push(format!("{item} is named twice"));
        }
        let Some(forms) = known.get(&item) else {
            wrong.push(format!("there is no {item}"));
            continue;
        };
        let file = root().join(&path);
        let text = if file.is_file() { read(&file) } else { String::new() };
        match test_body(&text, &test) {
            None => wrong.push(format!("{item}: {path} has no test `{test}`")),
            Some(body)
                if !used_by(&text, &body)
                    .iter()
                    .any(|text| forms.iter().any(|form| has(text, form))) =>
            {
                wrong.push(format!("{item} is not in the test `{test}` of {path}"));
            }
            Some(_) => {}
        }
    }
    wrong.extend(
        known
            .keys()
            .filter(|item| !named.contains(*item))
            .map(|item| format!("{item} has no test in the table")),
    );
    assert!(wrong.is_empty(), "docs/public-interface.md:\n{}", wrong.join("\n"));
}
