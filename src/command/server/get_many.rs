//! Bulk gets, for both protocols.

use std::io::Write;

use bytes::Bytes;
use embercask::{Namespace, Value};

use super::error::ApiError;
use super::memory::Holder;
use super::parse::bulk::{self, Shown};
use super::parse::rules;
use super::response::to_json;
use super::shared::Shared;

/// The values of a bulk get, and how one is written.
struct Values<'a, F> {
    shown: Vec<(&'a str, Option<(&'a Value, Shown<'a>)>)>,
    around: [&'static str; 2],
    show: F,
}

impl<F> Values<'_, F>
where
    F: Fn(&mut dyn Write, &Value, &Shown<'_>) -> Result<(), ApiError>,
{
    fn write(&self, json: &mut dyn Write) -> Result<(), ApiError> {
        let text = |json: &mut dyn Write, text: &str| {
            let written = json.write_all(text.as_bytes());
            written.map_err(|_| ApiError::new(500, 10001, "internal error"))
        };
        let [before, behind] = self.around;
        text(json, before)?;
        for (index, (key, value)) in self.shown.iter().enumerate() {
            text(json, if index == 0 { "{" } else { "," })?;
            to_json(&mut *json, key)?;
            text(json, ":")?;
            match value {
                Some((value, shown)) => (self.show)(json, value, shown)?,
                None => text(json, "null")?,
            }
        }
        text(json, "}")?;
        text(json, behind)
    }
}

/// Counts bytes.
struct Count(usize);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Shared {
    /// The values of a bulk get as a JSON object, in the order of the request; `show` writes a
    /// value that is there. For threads that may block.
    pub(super) fn many(
        &self,
        holder: &Holder,
        (namespace, request): (&Namespace, &bulk::Get),
        around: [&'static str; 2],
        show: impl Fn(&mut dyn Write, &Value, &Shown<'_>) -> Result<(), ApiError>,
    ) -> Result<Bytes, ApiError> {
        let values = namespace.get_many(&request.keys)?;
        let total: usize = values.iter().flatten().map(|value| value.len()).sum();
        if total > rules::VALUE_BYTES_MAX {
            return Err(ApiError::new(
                413,
                10032,
                "Total size of request exceeds the limit of 25MB",
            ));
        }
        let shown = request.keys.iter().zip(&values).map(|(key, value)| {
            let shown = value.as_ref().map(|value| request.kind.show(value)).transpose()?;
            Ok((key.as_str(), value.as_ref().zip(shown)))
        });
        let values = Values {
            shown: shown.collect::<Result<_, ApiError>>()?,
            around,
            show,
        };
        // Escapes and U+FFFD make text up to six times as long: it is written once to be measured.
        let mut count = Count(0);
        values.write(&mut count)?;
        self.body_memory.response(holder, count.0, || {
            let mut json = Vec::with_capacity(count.0);
            values.write(&mut json)?;
            Ok(json)
        })
    }
}
