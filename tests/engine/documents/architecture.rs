//! The map of the source: everything it names exists, and imports go down its floors. A long file
//! says why it is long, and no function is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{is_identifier, is_path, quoted};

fn page() -> String {
    std::fs::read_to_string("docs/architecture.md").unwrap()
}

/// The floor of each module, counted from the roof.
fn floors(page: &str) -> BTreeMap<&str, usize> {
    let (_, after) = page.split_once("```text\n").expect("the floors are a block of text");
    let (block, _) = after.split_once("```").unwrap();
    let mut floors = BTreeMap::new();
    for (floor, line) in block.lines().enumerate() {
        let names = line.split("  ").next().unwrap();
        for name in names.split(", ") {
            assert!(is_identifier(name), "a floor has the module {name}");
            assert!(floors.insert(name, floor).is_none(), "{name} is on two floors");
        }
    }
    floors
}

/// Code of the library without tests. Excludes the fuzz targets, which may import anything, like
/// tests.
fn code(directory: &Path, files: &mut Vec<(PathBuf, String)>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            if !["fuzzing", "command", "replica", "tests"].contains(&name) {
                code(&path, files);
            }
        } else if name.ends_with(".rs") && !["tests.rs", "interleavings.rs", "planted.rs"].contains(&name) {
            let text = std::fs::read_to_string(&path).unwrap();
            let is_code = |line: &&str| !line.trim_start().starts_with("//");
            let text: String = text.lines().filter(is_code).flat_map(|line| [line, "\n"]).collect();
            // Tests come last; modules that only contain tests are recognised by the attribute
            // before them.
            let text = text.split("\nmod tests {").next().unwrap();
            files.push((path, text.to_owned()));
        }
    }
    let is_test_module = |path: &Path| {
        let declaration = format!("#[cfg(test)]\nmod {};", path.file_stem().unwrap().to_str().unwrap());
        let parent = path.parent().unwrap();
        let parents = [
            parent.join("mod.rs"),
            parent.join("lib.rs"),
            parent.with_extension("rs"),
        ];
        let declares = |parent: &PathBuf| std::fs::read_to_string(parent).is_ok_and(|text| text.contains(&declaration));
        parents.iter().any(declares)
    };
    files.retain(|(path, _)| !is_test_module(path));
}

/// The modules of the library named in this code.
fn imports(code: &str) -> Vec<&str> {
    let mut imports = Vec::new();
    for (at, mark) in code.match_indices("crate::") {
        // `embercask_crate::` and the like are not paths of ours.
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at + mark.len()..];
        let names = match rest.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap(),
            None => rest,
        };
        let first = |part: &'_ str| {
            part.find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(part.len())
        };
        let parts = if names.len() == rest.len() { 1 } else { usize::MAX };
        for part in names.split(',').take(parts) {
            let part = part.trim_start();
            imports.push(&part[..first(part)]);
        }
    }
    imports
}

#[test]
fn imports_between_modules_go_down_the_floors() {
    let page = page();
    let floors = floors(&page);
    let mut files = Vec::new();
    code(Path::new("src"), &mut files);
    assert!(files.len() > 80, "only {} files found", files.len());
    let mut wrong = Vec::new();
    let mut seen = 0;
    for (path, code) in &files {
        let inside = path.strip_prefix("src").unwrap();
        let module = inside.components().next().unwrap().as_os_str().to_str().unwrap();
        let module = module.trim_end_matches(".rs");
        let floor = *floors.get(module).unwrap_or_else(|| panic!("{module} is on no floor"));
        for import in imports(code) {
            if import == module || import == "planted" {
                continue;
            }
            seen += 1;
            if floors.get(import).is_none_or(|below| *below <= floor) {
                wrong.push(format!("{}: crate::{import}", path.display()));
            }
        }
    }
    assert!(seen > 300, "only {seen} imports found");
    assert!(wrong.is_empty(), "imports that do not go down:\n{}", wrong.join("\n"));
}

#[test]
fn every_file_and_function_that_the_map_names_exists() {
    let page = page();
    let mut named = 0;
    for line in page.split("\n\n").flat_map(|paragraph| paragraph.split(". ")) {
        let mut file: Option<(&str, String)> = None;
        for word in quoted(line) {
            if is_path(word) {
                assert!(Path::new(word).exists(), "{word} does not exist");
                let text = std::fs::read_to_string(word).unwrap_or_default();
                file = Some((word, text));
                named += 1;
            } else if let Some((path, text)) = file.as_ref().filter(|(path, _)| path.ends_with(".rs"))
                && is_identifier(word)
                && word.contains(char::is_lowercase)
                && !word.contains(char::is_uppercase)
            {
                let function = format!("fn {word}");
                assert!(text.contains(&function), "{path} has no function {word}");
                named += 1;
            }
        }
    }
    assert!(named > 60, "only {named} names found");
}

/// All source files, including those of the command.
fn all_sources(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            all_sources(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

#[test]
fn a_long_file_says_in_its_first_line_why_it_is_long() {
    const LINES_MAX: usize = 400;
    let mut files = Vec::new();
    all_sources(Path::new("src"), &mut files);
    assert!(files.len() > 150, "only {} files found", files.len());
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        let is_explained = text
            .lines()
            .next()
            .is_some_and(|line| line.contains("Over 400 lines: "));
        let is_long = text.lines().count() > LINES_MAX;
        assert_eq!(
            is_long,
            is_explained,
            "{} has {} lines",
            path.display(),
            text.lines().count()
        );
    }
}

#[test]
fn comments_are_wrapped_at_a_hundred_columns() {
    const COLUMNS_MAX: usize = 100;
    let mut files = Vec::new();
    for place in ["src", "tests", "benches", "examples"] {
        all_sources(Path::new(place), &mut files);
    }
    let (mut comments, mut wide) = (0, Vec::new());
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        let mut is_in_fence = false;
        for (line, number) in text.lines().zip(1..) {
            let comment = line.trim_start();
            let Some(words) = comment
                .strip_prefix("//")
                .map(|rest| rest.trim_start_matches(['/', '!', ' ']))
            else {
                is_in_fence = false;
                continue;
            };
            is_in_fence ^= words.starts_with("```");
            comments += 1;
            // The lines of a table, and those of code in an example, cannot be wrapped.
            if line.chars().count() > COLUMNS_MAX && !is_in_fence && !words.starts_with('|') {
                wide.push(format!("{}:{number}", path.display()));
            }
        }
    }
    assert!(comments > 10_000, "only {comments} comments found");
    assert!(wide.is_empty(), "wider than {COLUMNS_MAX} columns: {wide:#?}");
}

/// A function of a source file.
struct Function<'a> {
    name: &'a str,
    /// From the line of its `fn` to that of its closing brace, comments and blank lines included.
    lines: usize,
    /// Besides `self`.
    parameters: usize,
}

/// The functions in formatted source text, also nested ones and those of traits and macros.
fn functions(text: &str) -> Vec<Function<'_>> {
    let lines: Vec<&str> = text.lines().collect();
    let mut functions = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some((name, _)) = function_head(line) else {
            continue;
        };
        let rest = &lines[at..];
        // Formatted code ends a signature with its line, and a body with a brace below its `fn`.
        let is_end = |line: &&str| line.ends_with(['{', '}', ';']);
        let signature_lines = 1 + rest.iter().position(is_end).expect("a signature ends");
        let indent = &line[..line.len() - line.trim_start().len()];
        let closing = format!("{indent}}}");
        let is_open = rest[signature_lines - 1].ends_with('{');
        let body_lines = match rest[signature_lines..].iter().position(|line| *line == closing) {
            Some(lines) if is_open => lines + 1,
            _ => 0,
        };
        let is_code = |line: &&&str| !line.trim_start().starts_with("//");
        let signature: Vec<&str> = rest[..signature_lines].iter().filter(is_code).copied().collect();
        let signature = signature.join(" ");
        let (_, after_name) = function_head(&signature).expect("it begins with the same line");
        functions.push(Function {
            name,
            lines: signature_lines + body_lines,
            parameters: parameters(after_name),
        });
    }
    functions
}

/// The name of the function that begins with this line, and what follows the name.
fn function_head(line: &str) -> Option<(&str, &str)> {
    let (qualifiers, rest) = line
        .trim_start()
        .split_once("fn ")
        .filter(|(before, _)| before.is_empty() || before.ends_with(' '))?;
    let is_qualifier = |word: &str| {
        ["pub", "const", "async", "unsafe", "extern", "\"C\""].contains(&word)
            || word.starts_with("pub(")
            || word.ends_with(')')
    };
    if !qualifiers.split_whitespace().all(is_qualifier) {
        return None;
    }
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_')?;
    Some(rest.split_at(end))
}

/// The number of parameters besides `self` in a signature, from behind its name.
fn parameters(after_name: &str) -> usize {
    let (mut depth, mut is_inside, mut before) = (0, false, ' ');
    let mut parameters = vec![String::new()];
    for character in after_name.chars() {
        match character {
            // The type parameters come first, and are closed again before this.
            '(' if depth == 0 => is_inside = true,
            ',' if depth == 1 && is_inside => parameters.push(String::new()),
            _ if is_inside => parameters.last_mut().unwrap().push(character),
            _ => {}
        }
        match character {
            '(' | '[' | '{' | '<' => depth += 1,
            // Not that of an arrow.
            '>' if before == '-' => {}
            ')' | ']' | '}' | '>' => depth -= 1,
            _ => {}
        }
        if is_inside && depth == 0 {
            parameters.last_mut().unwrap().pop();
            break;
        }
        before = character;
    }
    let counts = |parameter: &&String| {
        let name = parameter.split(':').next().unwrap();
        let is_self = name.trim_start_matches([' ', '&']).split_whitespace().last() == Some("self");
        !is_self && !parameter.trim().is_empty()
    };
    parameters.iter().filter(counts).count()
}

#[test]
fn functions_are_measured_with_their_signatures() {
    let text = "
    pub(in crate::a) const fn first<F: Fn(u8, u8) -> u8>(
        &'a mut self,
        // One, or two.
        one: Map<u8, [u8; 2]>,
        two: (u8, u8),
    ) -> Result<u8, u8>
    where
        F: Send,
    {
        fn inner() {}

    }

    fn second(self: &Arc<Self>) -> Pair<A, B>;
    let not = fn (a, b);
";
    let found: Vec<_> = functions(text)
        .iter()
        .map(|function| (function.name, function.lines, function.parameters))
        .collect();
    assert_eq!(found, [("first", 12, 2), ("inner", 1, 0), ("second", 1, 0)]);
}

#[test]
fn a_function_has_at_most_70_lines_and_five_parameters() {
    const LINES_MAX: usize = 70;
    const PARAMETERS_MAX: usize = 5;
    let mut files = Vec::new();
    all_sources(Path::new("src"), &mut files);
    let (mut seen, mut wrong) = (0, Vec::new());
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        for function in functions(&text) {
            seen += 1;
            let Function {
                name,
                lines,
                parameters,
            } = function;
            if lines > LINES_MAX || parameters > PARAMETERS_MAX {
                let place = path.display();
                wrong.push(format!("{place}: {name} has {lines} lines and {parameters} parameters"));
            }
        }
    }
    assert!(seen > 3000, "only {seen} functions found");
    assert!(wrong.is_empty(), "functions too large:\n{}", wrong.join("\n"));
}
