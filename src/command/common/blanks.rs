//! Whitespace in JSON.

/// JSON without whitespace between its tokens.
pub(crate) fn without_blanks(json: &str) -> String {
    let (mut in_string, mut is_escaped) = (false, false);
    let keep = |character: &char| {
        let is_blank = !in_string && character.is_ascii_whitespace();
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => in_string = !in_string,
            _ => {}
        }
        !is_blank
    };
    json.chars().filter(keep).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_in_strings_stay() {
        let json = "{ \"a b\" :\n[1,\t\"\\\" c\\\\\" , \"d e\"] }";
        assert_eq!(without_blanks(json), "{\"a b\":[1,\"\\\" c\\\\\",\"d e\"]}");
    }
}
