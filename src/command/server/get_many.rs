//! Bulk gets, for both protocols.

use bytes::Bytes;
use embercask::{Namespace, Value};

use super::error::ApiError;
use super::parse::{bulk, rules};
use super::response::to_json;
use super::shared::Shared;

impl Shared {
    /// The values of a bulk get as a JSON object, in the order of the request; `show` writes a
    /// value that is there. For threads that may block.
    pub(super) fn many(
        &self,
        namespace: &Namespace,
        request: &bulk::Get,
        [before, behind]: [&str; 2],
        show: impl Fn(&mut Vec<u8>, &Value) -> Result<(), ApiError>,
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
        // Escapes and U+FFFD make text longer, and a vector grows by doubling.
        self.body_memory.response_in_memory(4 * total, || {
            let mut json = Vec::with_capacity(total);
            json.extend_from_slice(before.as_bytes());
            for (index, (key, value)) in request.keys.iter().zip(&values).enumerate() {
                json.push(if index == 0 { b'{' } else { b',' });
                to_json(&mut json, key)?;
                json.push(b':');
                match value {
                    Some(value) => show(&mut json, value)?,
                    None => json.extend_from_slice(b"null"),
                }
            }
            json.push(b'}');
            json.extend_from_slice(behind.as_bytes());
            Ok(json)
        })
    }
}
