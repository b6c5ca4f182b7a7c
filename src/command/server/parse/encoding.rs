//! Percent escapes and query parameters, for both protocols: bytes in, bytes out, decoded once.

/// Decodes percent escapes; None if one is malformed. In a query, a plus sign is a space.
pub(crate) fn decode(text: &str, plus_is_space: bool) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes().iter();
    while let Some(&byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let high = char::from(*rest.next()?).to_digit(16)?;
                let low = char::from(*rest.next()?).to_digit(16)?;
                u8::try_from(high << 4 | low).ok()?
            }
            b'+' if plus_is_space => b' ',
            byte => byte,
        });
    }
    Some(bytes)
}

/// The parameters of a query.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    pub(crate) fn new(query: Option<&'a str>) -> Query<'a> {
        Query(query.unwrap_or_default())
    }

    /// The first parameter of this name, decoded; an error if it is malformed.
    pub(crate) fn get(self, name: &str) -> Result<Option<Vec<u8>>, Malformed> {
        for pair in self.0.split('&') {
            let (found, value) = pair.split_once('=').unwrap_or((pair, ""));
            if decode(found, true).is_some_and(|found| found == name.as_bytes()) {
                return decode(value, true).map(Some).ok_or(Malformed);
            }
        }
        Ok(None)
    }

    /// As [`Query::get`], as text.
    pub(crate) fn text(self, name: &str) -> Result<Option<String>, Malformed> {
        let value = self.get(name)?;
        value.map(String::from_utf8).transpose().map_err(|_| Malformed)
    }

    /// The names of all parameters, decoded; of a malformed one, as it was sent.
    pub(crate) fn names(self) -> impl Iterator<Item = String> + use<'a> {
        let pairs = self.0.split('&').filter(|pair| !pair.is_empty());
        pairs.map(|pair| {
            let (name, _) = pair.split_once('=').unwrap_or((pair, ""));
            let decoded = decode(name, true).and_then(|name| String::from_utf8(name).ok());
            decoded.unwrap_or_else(|| name.to_owned())
        })
    }
}

/// A parameter with a malformed encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_decoded_once() {
        let plain = |text| decode(text, false);
        assert_eq!(plain("a%2Fb%252F+").as_deref(), Some(&b"a/b%2F+"[..]));
        assert_eq!(plain("%ED%a0%80").as_deref(), Some(&b"\xed\xa0\x80"[..]));
        for wrong in ["%", "%4", "%4g", "%+1", "a%"] {
            assert_eq!(plain(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn parameters_are_form_encoded() {
        let query = Query::new(Some("prefix=a+b%2B&empty=&flag&prefix=second&bad=%zz&bytes=%ff"));
        assert_eq!(query.text("prefix"), Ok(Some("a b+".to_owned())));
        assert_eq!(query.text("empty"), Ok(Some(String::new())));
        assert_eq!(query.text("flag"), Ok(Some(String::new())));
        assert_eq!(query.text("absent"), Ok(None));
        assert_eq!(query.text("bad"), Err(Malformed));
        assert_eq!(query.get("bytes"), Ok(Some(vec![0xff])));
        assert_eq!(query.text("bytes"), Err(Malformed));
    }
}
