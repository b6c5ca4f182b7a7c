//! What a client has sent that means nothing here: ignored, as in Workers KV, and told. It may be a
//! misspelled lifetime.

use std::collections::BTreeSet;

/// Most names that are told one by one.
const TOLD_MAX: usize = 5;
/// Longest name that is kept, in characters.
const CHARACTERS_MAX: usize = 100;

/// Names of what was ignored: a few of them, and how many more there were.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Ignored {
    names: BTreeSet<String>,
    more: usize,
}

impl Ignored {
    pub(crate) fn add(&mut self, name: &str) {
        let name: String = name.chars().take(CHARACTERS_MAX).collect();
        if self.names.contains(&name) {
            return;
        }
        if self.names.len() < TOLD_MAX {
            self.names.insert(name);
        } else {
            self.more += 1;
        }
    }

    /// Adds what another has.
    pub(crate) fn extend(&mut self, other: &Ignored) {
        other.names.iter().for_each(|name| self.add(name));
        self.more += other.more;
    }

    /// A message for each name, and one about the others: `5 more parameters are unknown`.
    pub(crate) fn messages(&self, tell: impl Fn(&str) -> String, others: &str) -> Vec<String> {
        let mut messages: Vec<String> = self.names.iter().map(|name| tell(name)).collect();
        if self.more > 0 {
            messages.push(format!("{} more {others}", self.more));
        }
        messages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_names_are_told_once_each_and_the_others_are_counted() {
        let mut ignored = Ignored::default();
        let told = |ignored: &Ignored| ignored.messages(str::to_uppercase, "are left");
        assert_eq!(told(&ignored), Vec::<String>::new());
        for name in ["b", "a", "b"] {
            ignored.add(name);
        }
        assert_eq!(told(&ignored), ["A", "B"]);
        let mut all = Ignored::default();
        for name in ["e", "d", "c", "b", "f", "g"] {
            all.add(name);
        }
        all.extend(&ignored);
        assert_eq!(told(&all), ["B", "C", "D", "E", "F", "2 more are left"]);
        ignored.add(&"\u{fc}".repeat(1000));
        assert_eq!(told(&ignored)[2], "\u{dc}".repeat(100));
    }
}
