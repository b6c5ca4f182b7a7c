//! The output of `bulk get`: a JSON object, written value by value.

use std::io::{BufWriter, StdoutLock, Write};

use super::output::{TextOrBase64, json, stdout};
use crate::common::failure::{Failure, Outcome};
use crate::common::text::escape;

pub(crate) struct PrintedValues {
    out: BufWriter<StdoutLock<'static>>,
    is_empty: bool,
}

impl PrintedValues {
    pub(crate) fn new() -> PrintedValues {
        PrintedValues {
            out: stdout(),
            is_empty: true,
        }
    }

    /// Writes a key with its value, or with null if it is absent.
    pub(crate) fn value(&mut self, key: &[u8], value: Option<&[u8]>) -> Outcome {
        let name = std::str::from_utf8(key).map_err(|_| {
            Failure::usage(
                format!("the key \"{}\" is not text, as a JSON object requires", escape(key)),
                "use `embercask key get --key-format escaped` for it",
            )
        })?;
        let out = &mut self.out;
        out.write_all(if self.is_empty { b"{\n  " } else { b",\n  " })?;
        self.is_empty = false;
        json(out, &name)?;
        out.write_all(b": ")?;
        // As in wrangler, null for an absent key. A value that is not text is an object with its
        // base64.
        match value.map(TextOrBase64::of) {
            None => Ok(out.write_all(b"null")?),
            Some(TextOrBase64 { text: Some(text), .. }) => json(out, &text),
            Some(TextOrBase64 { base64, .. }) => json(out, &serde_json::json!({ "base64": base64 })),
        }
    }

    pub(crate) fn end(mut self) -> Outcome {
        self.out.write_all(if self.is_empty { b"{}\n" } else { b"\n}\n" })?;
        Ok(self.out.flush()?)
    }
}
