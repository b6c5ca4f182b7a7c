//! Entity tags: what a client names to say which content of a key it has seen.
//!
//! A tag is a digest of all that a put has stored, so that every copy of a store has the same one
//! for the same content. A sequence would be shorter to compute, and would differ between copies.

use std::fmt;

use embercask::Value;
use sha2::{Digest, Sha256};

/// Reads of longer values compute no tag unless the request needs one.
pub(crate) const UNASKED_BYTES_MAX: usize = 1 << 20;

/// Names the encoding that is digested, which a later version may change.
const ENCODING: &[u8] = b"embercask-etag-1";

/// A strong entity tag: 128 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Etag(pub(crate) u128);

impl Etag {
    /// Each part follows its length, so that no bytes can move from one part to another.
    pub(crate) fn of(value: &[u8], metadata: Option<&[u8]>, expiry_ms: Option<u64>) -> Etag {
        let expiry = expiry_ms.map(u64::to_be_bytes);
        let mut digest = Sha256::new();
        digest.update(ENCODING);
        for part in [Some(value), metadata, expiry.as_ref().map(<[u8; 8]>::as_slice)] {
            // Absent metadata differ from empty ones.
            digest.update([u8::from(part.is_some())]);
            let part = part.unwrap_or_default();
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        let mut tag = 0;
        for byte in digest.finalize().iter().take(16) {
            tag = tag << 8 | u128::from(*byte);
        }
        Etag(tag)
    }

    pub(crate) fn of_value(value: &Value) -> Etag {
        Etag::of(value.as_bytes(), value.metadata(), value.expiry_ms())
    }
}

/// As in a header, with its quotation marks.
impl fmt::Display for Etag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{:032x}\"", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Clients and copies of the store keep tags: a change needs another name of the encoding.
    #[test]
    fn a_tag_is_the_digest_that_is_documented() {
        // printf 'embercask-etag-1\1\0\0\0\0\0\0\0\1v\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0' |
        // sha256sum
        assert_eq!(Etag::of(b"v", None, None).to_string(), PLAIN);
        // printf
        // 'embercask-etag-1\1\0\0\0\0\0\0\0\1v\1\0\0\0\0\0\0\0\2{}\1\0\0\0\0\0\0\0\10...\3\350' |
        // sha256sum
        assert_eq!(Etag::of(b"v", Some(b"{}"), Some(1000)).to_string(), FULL);
    }

    const PLAIN: &str = "\"a56f785ab60aba2d1a15ea8f207138ad\"";
    const FULL: &str = "\"f7ccd13c5bb101648998f55488d6c73c\"";

    #[test]
    fn whatever_differs_in_what_is_stored_has_another_tag() {
        let all = [
            Etag::of(b"", None, None),
            Etag::of(b"", Some(b""), None),
            Etag::of(b"", None, Some(0)),
            Etag::of(b"ab", None, None),
            Etag::of(b"a", Some(b"b"), None),
            Etag::of(b"", Some(b"ab"), None),
            Etag::of(b"ab", None, Some(1)),
            Etag::of(b"ab", None, Some(256)),
            Etag::of(b"ab", Some(&1_u64.to_be_bytes()), None),
        ];
        for (number, tag) in all.iter().enumerate() {
            assert!(!all[..number].contains(tag), "{number}");
        }
    }
}
