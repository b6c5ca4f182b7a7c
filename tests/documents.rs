//! The documents name the tests that hold what they promise: each of these exists.

use std::path::Path;

/// Pieces of a text between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn is_path(word: &str) -> bool {
    (word.starts_with("tests/") || word.starts_with("src/")) && !word.contains('*')
}

fn is_test_name(word: &str) -> bool {
    word.matches('_').count() >= 2
        && word
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// All of a file, or of all files in a directory and below.
fn source(path: &Path) -> String {
    if path.is_dir() {
        let entries = std::fs::read_dir(path).unwrap();
        return entries.map(|entry| source(&entry.unwrap().path())).collect();
    }
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    // Stores of earlier versions lie there as well.
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn every_test_that_the_documents_name_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut named = 0;
    for document in ["durability.md", "known-bugs.md", "crash-testing.md"] {
        let text = source(&root.join("docs").join(document));
        let mut place = None;
        for word in quoted(&text) {
            if is_path(word) {
                let path = root.join(word);
                assert!(path.exists(), "docs/{document} names {word}, which does not exist");
                // `tests/name/main.rs` stands for the whole folder.
                let whole = path.ends_with("main.rs").then(|| path.parent().unwrap().to_owned());
                place = Some((word, source(&whole.unwrap_or(path))));
            } else if is_test_name(word) {
                let Some((path, source)) = &place else { continue };
                assert!(
                    source.contains(&format!("fn {word}(")),
                    "docs/{document} says that {path} has {word}"
                );
                named += 1;
            }
        }
    }
    assert!(named > 60, "only {named} tests found in the documents");
}
