//! Bodies in multipart/form-data.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::{BodyDataStream, Full};

use crate::server::error::ApiError;

/// The parts of a put.
pub(crate) struct Form {
    pub(crate) value: Bytes,
    pub(crate) metadata: Option<Bytes>,
}

/// The boundary in a content type; None if it is not that of a form.
pub(crate) fn boundary(content_type: &str) -> Option<String> {
    multer::parse_boundary(content_type).ok()
}

/// Reads a form. Parts other than value and metadata are ignored.
pub(crate) async fn read(body: Bytes, boundary: String) -> Result<Form, ApiError> {
    let unreadable = |_| ApiError::new(400, 10012, "the multipart body could not be parsed");
    let stream = BodyDataStream::new(Full::<Bytes>::new(body));
    let mut form = multer::Multipart::new::<_, Bytes, Infallible, _>(stream, boundary);
    let (mut value, mut metadata) = (None, None);
    while let Some(field) = form.next_field().await.map_err(unreadable)? {
        match field.name() {
            Some("value") => value = Some(field.bytes().await.map_err(unreadable)?),
            Some("metadata") => metadata = Some(field.bytes().await.map_err(unreadable)?),
            _ => {}
        }
    }
    let value = value.ok_or_else(|| ApiError::new(400, 10047, "the multipart field \"value\" is missing"))?;
    Ok(Form {
        value,
        // An empty part is a form's only way to say that there is no metadata.
        metadata: metadata.filter(|json| !json.is_empty()),
    })
}
