//! Header values of the form `type; name=value; name="value"`, as in Content-Type and
//! Content-Disposition.

/// A value with its parameters.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct WithParameters {
    /// What is before the parameters, in lower case.
    pub(crate) kind: String,
    /// Names in lower case.
    parameters: Vec<(String, String)>,
}

impl WithParameters {
    /// An error says what is ambiguous. Blanks around separators are ignored, and characters that
    /// should be in quotes need none, except quotes and semicolons.
    pub(crate) fn read(text: &str) -> Result<WithParameters, &'static str> {
        let (kind, mut rest) = text.split_once(';').unwrap_or((text, ""));
        let mut parameters = Vec::new();
        loop {
            rest = rest.trim_start_matches([' ', '\t', ';']);
            if rest.is_empty() {
                break;
            }
            let end = rest.find([';', '=']).unwrap_or(rest.len());
            let (name, behind) = rest.split_at_checked(end).unwrap_or((rest, ""));
            let Some(value) = behind.strip_prefix('=') else {
                rest = behind;
                continue;
            };
            let (value, behind) = read_value(value.trim_start_matches([' ', '\t']))?;
            parameters.push((name.trim().to_ascii_lowercase(), value));
            rest = behind;
        }
        Ok(WithParameters {
            kind: kind.trim().to_ascii_lowercase(),
            parameters,
        })
    }

    /// The only parameter of this name; an error if there are several, None if there is none.
    pub(crate) fn get(&self, name: &str) -> Result<Option<&str>, &'static str> {
        let mut found = self.parameters.iter().filter(|(known, _)| known == name);
        match (found.next(), found.next()) {
            (Some((_, value)), None) => Ok(Some(value)),
            (None, _) => Ok(None),
            (Some(_), Some(_)) => Err("a parameter is given twice"),
        }
    }
}

/// A value at the beginning of a text, and what follows it.
fn read_value(text: &str) -> Result<(String, &str), &'static str> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(';').unwrap_or(text.len());
        let (value, behind) = text.split_at_checked(end).unwrap_or((text, ""));
        if value.contains('"') {
            return Err("a quote is in the middle of a parameter");
        }
        return Ok((value.trim().to_owned(), behind));
    };
    let (mut value, mut rest) = (String::new(), quoted.chars());
    while let Some(character) = rest.next() {
        match character {
            '"' => {
                let behind = rest.as_str().trim_start_matches([' ', '\t']);
                return match behind.is_empty() || behind.starts_with(';') {
                    true => Ok((value, behind)),
                    false => Err("something follows a parameter in quotes"),
                };
            }
            // Browsers do not escape the backslashes of file names.
            '\\' if rest.as_str().starts_with(['"', '\\']) => value.extend(rest.next()),
            character => value.push(character),
        }
    }
    Err("a quote is not closed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_as_clients_write_them() {
        let boundary =
            |text: &str| WithParameters::read(text).and_then(|read| Ok(read.get("boundary")?.map(str::to_owned)));
        for (text, expected) in [
            ("multipart/form-data", None),
            ("multipart/form-data;", None),
            ("multipart/form-data; boundary=abc", Some("abc")),
            (" Multipart/FORM-data ;; BOUNDARY = abc ; charset=utf-8", Some("abc")),
            ("multipart/form-data; boundary=a/b=c:d,e", Some("a/b=c:d,e")),
            ("multipart/form-data; boundary=\"a;b \\\"c\\\\\"", Some("a;b \"c\\")),
            ("multipart/form-data; boundary=\"abc\" ; x", Some("abc")),
            ("multipart/form-data; boundary=", Some("")),
            ("multipart/form-data; boundary", None),
            ("multipart/form-data; xboundary=a", None),
            ("multipart/form-data; note=\"; boundary=x\"", None),
        ] {
            assert_eq!(boundary(text), Ok(expected.map(str::to_owned)), "{text}");
            assert_eq!(
                WithParameters::read(text).unwrap().kind,
                "multipart/form-data",
                "{text}"
            );
        }
        for text in [
            "multipart/form-data; boundary=a; boundary=b",
            "multipart/form-data; boundary=\"abc",
            "multipart/form-data; boundary=\"abc\"def",
            "multipart/form-data; boundary=a\"b\"",
            "multipart/form-data; boundary=\"abc\\\"",
        ] {
            assert!(boundary(text).is_err(), "{text}");
        }
    }
}
