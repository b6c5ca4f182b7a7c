//! Every test named in the documents, or in the table of planted breakages, exists and is a test.

mod architecture;
mod planted;

use std::collections::BTreeSet;
use std::path::Path;

/// The parts of a text between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn is_path(word: &str) -> bool {
    (word.starts_with("tests/") || word.starts_with("src/")) && !word.contains('*')
}

fn is_identifier(word: &str) -> bool {
    !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn is_test_name(word: &str) -> bool {
    word.matches('_').count() >= 2 && is_identifier(word) && !word.contains(char::is_uppercase)
}

/// The content of a file, or of all files in a directory and below.
fn source(path: &Path) -> String {
    if path.is_dir() {
        let entries = std::fs::read_dir(path).unwrap();
        return entries.map(|entry| source(&entry.unwrap().path())).collect();
    }
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    // The directory also contains binary stores of earlier versions.
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The text between this opening bracket and its closing one.
fn bracketed(text: &str) -> &str {
    let mut depth = 0;
    let end = text.find(|c| {
        depth += match c {
            '(' | '{' | '[' => 1,
            ')' | '}' | ']' => -1,
            _ => 0,
        };
        depth == 0
    });
    &text[1..end.unwrap_or(text.len())]
}

/// Names of the tests in a source: functions marked as tests, and arguments of macros that define
/// such functions.
fn tests_in(source: &str) -> BTreeSet<&str> {
    let mut tests = BTreeSet::new();
    for (at, mark) in source.match_indices("#[test]") {
        // Other attributes and comments may come between.
        let Some((_, function)) = source[at + mark.len()..].split_once("fn ") else {
            continue;
        };
        tests.extend(function.split('(').next().filter(|name| is_identifier(name)));
    }
    for (at, mark) in source.match_indices("macro_rules! ") {
        let (name, body) = source[at + mark.len()..].split_once(' ').unwrap_or_default();
        if !bracketed(body).contains("#[test]") {
            continue;
        }
        for (at, call) in source.match_indices(&format!("{name}!")) {
            let arguments = bracketed(source[at + call.len()..].trim_start());
            tests.extend(
                arguments
                    .split(|c: char| !is_identifier(&c.to_string()))
                    .filter(|word| !word.is_empty()),
            );
        }
    }
    tests
}

#[test]
fn every_test_that_the_documents_name_exists_and_is_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (document, least) in [("durability.md", 50), ("known-bugs.md", 70), ("crash-testing.md", 0)] {
        let text = source(&root.join("docs").join(document));
        let mut place = None;
        let mut named = 0;
        for word in quoted(&text) {
            if is_path(word) {
                let path = root.join(word);
                assert!(path.exists(), "docs/{document} names {word}, which does not exist");
                // `tests/name/main.rs` means the whole folder, as does a `mod.rs`.
                let whole =
                    (path.ends_with("main.rs") || path.ends_with("mod.rs")).then(|| path.parent().unwrap().to_owned());
                place = Some((word, source(&whole.unwrap_or(path))));
            } else if is_test_name(word) {
                let Some((path, source)) = &place else {
                    panic!("docs/{document} names {word} without a file before it");
                };
                assert!(
                    tests_in(source).contains(word),
                    "docs/{document}: {path} has no test {word}"
                );
                named += 1;
            }
        }
        assert!(named >= least, "only {named} tests found in docs/{document}");
    }
}

#[test]
fn a_function_that_is_no_test_is_not_taken_for_one() {
    let source = "
        /// As in `a_name_in_a_comment`.
        fn a_helper_of_tests() {}
        #[test]
        #[cfg(unix)]
        fn a_marked_function() { a_helper_of_tests(); }
        fn another_helper_of_tests(numbers: &[u8]) {}
        proptest! {
            #[test]
            fn one_of_proptest(steps in steps()) {}
        }
        macro_rules! made {
            ($($name:ident),+) => {$(
                #[test]
                fn $name() { a_helper_of_tests(); }
            )+};
        }
        made!(made_by_a_macro, made_as_well);
        made! { made_in_braces }
        macro_rules! helper { ($name:ident) => { fn $name() {} } }
        helper!(no_test_of_a_macro);
    ";
    let expected = [
        "a_marked_function",
        "made_as_well",
        "made_by_a_macro",
        "made_in_braces",
        "one_of_proptest",
    ];
    assert!(tests_in(source).into_iter().eq(expected), "{:?}", tests_in(source));
}
