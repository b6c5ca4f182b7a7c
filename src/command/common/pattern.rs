//! Patterns over keys, as shells have them for files: `*`, `?` and `[a-z]`. A key is not a path, so
//! they match any character, `/` too.

use super::failure::{Failure, Outcome};

/// Added to a byte that is not part of a text, which makes it different from every character.
const NO_TEXT: u32 = 0x11_0000;

/// A pattern for whole keys.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    /// This character.
    One(u32),
    /// Any character.
    Any,
    /// Any number of characters.
    Many,
    /// A character in one of these ranges, or in none of them.
    Class { is_negated: bool, ranges: Vec<(u32, u32)> },
}

impl Part {
    fn takes(&self, character: u32) -> bool {
        match self {
            Part::One(own) => *own == character,
            Part::Any => true,
            Part::Many => false,
            Part::Class { is_negated, ranges } => {
                ranges.iter().any(|(first, last)| (*first..=*last).contains(&character)) != *is_negated
            }
        }
    }
}

/// The characters of a key; where it is not text, its bytes.
fn characters(bytes: &[u8]) -> Vec<u32> {
    let chunks = bytes.utf8_chunks();
    chunks
        .flat_map(|chunk| {
            let bytes = chunk.invalid().iter().map(|byte| NO_TEXT + u32::from(*byte));
            chunk.valid().chars().map(u32::from).chain(bytes)
        })
        .collect()
}

impl Pattern {
    pub(crate) fn parse(pattern: &[u8]) -> Outcome<Pattern> {
        let mut parts = Vec::new();
        let mut rest = characters(pattern).into_iter();
        while let Some(character) = rest.next() {
            parts.push(match char::from_u32(character) {
                Some('*') => Part::Many,
                Some('?') => Part::Any,
                Some('[') => class(&mut rest)?,
                Some('\\') => Part::One(escaped(&mut rest)?),
                _ => Part::One(character),
            });
        }
        parts.dedup_by(|second, first| matches!((first, second), (Part::Many, Part::Many)));
        Ok(Pattern { parts })
    }

    /// What all keys that match begin with.
    pub(crate) fn prefix(&self) -> Vec<u8> {
        let mut prefix = Vec::new();
        for part in &self.parts {
            let Part::One(character) = part else { break };
            match char::from_u32(*character) {
                Some(character) => prefix.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
                None => prefix.extend(u8::try_from(character - NO_TEXT)),
            }
        }
        prefix
    }

    /// Whether the whole key matches.
    pub(crate) fn matches(&self, key: &[u8]) -> bool {
        let key = characters(key);
        let (mut part, mut at) = (0, 0);
        // The part behind the last `*`, and where what it takes begins: it takes as little as it
        // can, and more only when what follows does not match.
        let mut last_many = None;
        loop {
            match (self.parts.get(part), key.get(at)) {
                (None, None) => return true,
                (Some(Part::Many), _) => {
                    part += 1;
                    last_many = Some((part, at));
                }
                (Some(own), Some(character)) if own.takes(*character) => {
                    part += 1;
                    at += 1;
                }
                _ => match last_many {
                    Some((behind, begun)) if begun < key.len() => {
                        last_many = Some((behind, begun + 1));
                        (part, at) = (behind, begun + 1);
                    }
                    _ => return false,
                },
            }
        }
    }
}

/// The character behind a backslash.
fn escaped(rest: &mut impl Iterator<Item = u32>) -> Outcome<u32> {
    let end = || Failure::usage("the pattern ends with a backslash", "write \\\\ for the character \\");
    rest.next().ok_or_else(end)
}

/// A class up to its closing bracket, which is an ordinary character where it is the first.
fn class(rest: &mut impl Iterator<Item = u32>) -> Outcome<Part> {
    let open = || Failure::usage("a [ of the pattern is not closed", "write \\[ for the character [");
    let mut rest = rest.peekable();
    let is_negated = rest
        .next_if(|first| matches!(char::from_u32(*first), Some('!' | '^')))
        .is_some();
    let mut ranges = Vec::new();
    loop {
        let first = match rest.next().ok_or_else(open)? {
            character if character == u32::from(']') && !ranges.is_empty() => break,
            character if character == u32::from('\\') => escaped(&mut rest)?,
            character => character,
        };
        if rest.next_if(|next| *next == u32::from('-')).is_none() {
            ranges.push((first, first));
            continue;
        }
        match rest.next().ok_or_else(open)? {
            // A hyphen at the end is an ordinary character.
            last if last == u32::from(']') => {
                ranges.extend([(first, first), (u32::from('-'), u32::from('-'))]);
                break;
            }
            last => {
                let last = if last == u32::from('\\') {
                    escaped(&mut rest)?
                } else {
                    last
                };
                if last < first {
                    return Err(Failure::usage(
                        "a range of the pattern is the wrong way round",
                        "write [a-z]",
                    ));
                }
                ranges.push((first, last));
            }
        }
    }
    Ok(Part::Class { is_negated, ranges })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matching(pattern: &[u8], key: &[u8]) -> bool {
        Pattern::parse(pattern).unwrap().matches(key)
    }

    #[test]
    fn patterns_are_those_of_shells() {
        for (pattern, yes, no) in [
            ("", &[""][..], &["a"][..]),
            ("*", &["", "a", "a/b", "ü"], &[]),
            ("user-*", &["user-", "user-1"], &["user", "auser-1"]),
            ("*-1", &["-1", "a-1-1"], &["-12", "1"]),
            ("a?c", &["abc", "aüc", "a?c"], &["ac", "abbc"]),
            ("a**c*", &["ac", "abc", "acc"], &["ab"]),
            ("[abc]", &["a", "b", "c"], &["d", "", "ab"]),
            ("[a-cx-z0]", &["b", "y", "0"], &["d", "-", "1"]),
            ("[!a-c]", &["d", "ü"], &["a", "c", ""]),
            ("[^a]", &["b"], &["a"]),
            ("[]a]", &["]", "a"], &["b"]),
            ("[!]a]", &["b"], &["]", "a"]),
            ("[a-]", &["a", "-"], &["b"]),
            ("[\\]-\\^]", &["]", "^"], &["\\", "-"]),
            ("\\*\\[\\\\", &["*[\\"], &["a[\\"]),
            ("]-{}", &["]-{}"], &["-"]),
        ] {
            for key in yes {
                assert!(matching(pattern.as_bytes(), key.as_bytes()), "{pattern} {key}");
            }
            for key in no {
                assert!(!matching(pattern.as_bytes(), key.as_bytes()), "{pattern} {key}");
            }
        }
        assert!(matching(b"a?\xff*", b"a\xfe\xff\x00"));
        assert!(!matching(b"\xc3*", "\u{fc}".as_bytes()));
        for wrong in ["[", "[a", "[]", "[!", "[a-", "\\", "a\\", "[z-a]", "[\\"] {
            assert!(Pattern::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn all_keys_that_match_begin_with_the_prefix() {
        for (pattern, prefix) in [
            (&b"user-*"[..], &b"user-"[..]),
            (b"*", b""),
            (b"a\\*b?", b"a*b"),
            (b"\xffa\xc3\xbc[x]", b"\xffa\xc3\xbc"),
            (b"all", b"all"),
        ] {
            assert_eq!(Pattern::parse(pattern).unwrap().prefix(), prefix);
        }
    }

    /// Every short pattern of these characters against every short key, compared with the
    /// definition.
    #[test]
    fn all_short_patterns_match_what_their_definition_says() {
        fn words(characters: &[u8], length_max: usize) -> Vec<Vec<u8>> {
            let mut all = vec![Vec::new()];
            let mut last = all.clone();
            for _ in 0..length_max {
                let longer = last
                    .iter()
                    .flat_map(|word| characters.iter().map(|one| [&word[..], &[*one]].concat()));
                last = longer.collect();
                all.extend(last.iter().cloned());
            }
            all
        }
        fn defined(pattern: &[u8], key: &[u8]) -> bool {
            match (pattern, key) {
                ([], key) => key.is_empty(),
                ([b'*', rest @ ..], _) => (0..=key.len()).any(|taken| defined(rest, &key[taken..])),
                ([b'?', rest @ ..], [_, behind @ ..]) => defined(rest, behind),
                ([one, rest @ ..], [first, behind @ ..]) => one == first && defined(rest, behind),
                _ => false,
            }
        }
        let keys = words(b"ab", 5);
        for pattern in words(b"ab*?", 5) {
            let parsed = Pattern::parse(&pattern).unwrap();
            for key in &keys {
                assert_eq!(parsed.matches(key), defined(&pattern, key), "{pattern:?} {key:?}");
                assert!(!parsed.matches(key) || key.starts_with(&parsed.prefix()));
            }
        }
    }
}
