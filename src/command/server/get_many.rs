//! Bulk gets, for both protocols.

use std::io::Write;

use bytes::Bytes;
use embercask::{Namespace, Value};

use super::blocking::blocking;
use super::body::{Body, too_large};
use super::error::ApiError;
use super::memory::Holder;
use super::parse::bulk::{self, Shown};
use super::parse::rules;
use super::response::to_json;
use super::shared::{Shared, Unexpired};

/// The values of a bulk get, and how one that is there is written.
struct Found<F> {
    request: bulk::Get,
    values: Vec<Option<Value>>,
    around: [&'static str; 2],
    show: F,
}

impl<F> Found<F>
where
    F: Fn(&mut dyn Write, &Value, &Shown<'_>) -> Result<(), ApiError>,
{
    /// Reads what the body asks for, and measures it as JSON.
    fn read(
        (namespace, mut body): (Namespace, Body),
        unexpired: Unexpired,
        around: [&'static str; 2],
        show: F,
    ) -> Result<(Self, usize), ApiError> {
        let request = bulk::get(&body.take_whole().ok_or_else(too_large)?)?;
        let mut values = namespace.get_many(&request.keys)?;
        for value in &mut values {
            value.take_if(|value| !unexpired.has(value.expiry_ms()));
        }
        let total: usize = values.iter().flatten().map(|value| value.len()).sum();
        if total > rules::VALUE_BYTES_MAX {
            return Err(ApiError::new(
                413,
                10032,
                "Total size of request exceeds the limit of 25MB",
            ));
        }
        let found = Found {
            request,
            values,
            around,
            show,
        };
        // Escapes and U+FFFD make text up to six times as long: it is written once to be measured.
        let mut count = Count(0);
        found.write(&mut count)?;
        Ok((found, count.0))
    }

    fn write(&self, json: &mut dyn Write) -> Result<(), ApiError> {
        let text = |json: &mut dyn Write, text: &str| {
            let written = json.write_all(text.as_bytes());
            written.map_err(|_| ApiError::new(500, 10001, "internal error"))
        };
        let [before, behind] = self.around;
        text(json, before)?;
        for (index, (key, value)) in self.request.keys.iter().zip(&self.values).enumerate() {
            text(json, if index == 0 { "{" } else { "," })?;
            to_json(&mut *json, key)?;
            text(json, ":")?;
            match value {
                Some(value) => {
                    let shown = self.request.kind.show(value)?;
                    match self.request.with_metadata {
                        true => (self.show)(json, value, &shown)?,
                        false => to_json(&mut *json, &shown)?,
                    }
                }
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
    /// value that is there together with its metadata, if the request asks for them.
    pub(super) async fn many(
        &self,
        holder: &Holder,
        (namespace, body): (Namespace, Body),
        around: [&'static str; 2],
        show: impl Fn(&mut dyn Write, &Value, &Shown<'_>) -> Result<(), ApiError> + Send + 'static,
    ) -> Result<Bytes, ApiError> {
        // Releases the memory of the body before waiting for that of the response.
        let unexpired = self.unexpired();
        let (found, bytes) = blocking(move || Found::read((namespace, body), unexpired, around, show)).await?;
        let memory = self.body_memory.for_response(holder, bytes).await?;
        blocking(move || {
            let mut json = Vec::with_capacity(bytes);
            found.write(&mut json)?;
            Ok(memory.response(json))
        })
        .await
    }
}
