//! Cursors: where a page ended, as text that says which listing it belongs to.

use std::ops::{Bound, RangeBounds};

use super::{List, as_ref};
use crate::error::{Error, Result};
use crate::planted::{Planted, planted};

const CURSOR_VERSION: u8 = 1;

impl List {
    /// A checksum of the parameters that a cursor is valid for.
    fn fingerprint(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.source.id().to_le_bytes());
        hasher.update(&[u8::from(self.reverse)]);
        for bound in [&Bound::Included(self.prefix.clone()), &self.start, &self.end] {
            let (kind, bytes): (u8, &[u8]) = match bound {
                Bound::Included(bytes) => (1, bytes),
                Bound::Excluded(bytes) => (2, bytes),
                Bound::Unbounded => (0, &[]),
            };
            hasher.update(&[kind]);
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        }
        hasher.finalize()
    }

    pub(crate) fn encode_cursor(&self, last_key: &[u8]) -> String {
        let mut bytes = Vec::with_capacity(1 + 4 + last_key.len() + 4);
        bytes.push(CURSOR_VERSION);
        bytes.extend_from_slice(&self.fingerprint().to_le_bytes());
        bytes.extend_from_slice(last_key);
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        base64url_encode(&bytes)
    }

    pub(crate) fn decode_cursor(&self, cursor: &str) -> Result<Vec<u8>> {
        let bytes = base64url_decode(cursor).ok_or(Error::InvalidCursor)?;
        let (content, crc) = bytes.split_last_chunk::<4>().ok_or(Error::InvalidCursor)?;
        if crc32fast::hash(content).to_le_bytes() != *crc && !planted(Planted::IgnoreCursorChecksum) {
            return Err(Error::InvalidCursor);
        }
        let (version, rest) = content.split_first().ok_or(Error::InvalidCursor)?;
        let (fingerprint, key) = rest.split_first_chunk::<4>().ok_or(Error::InvalidCursor)?;
        let is_of_another = u32::from_le_bytes(*fingerprint) != self.fingerprint();
        if *version != CURSOR_VERSION || is_of_another && !planted(Planted::IgnoreCursorListing) {
            return Err(Error::InvalidCursor);
        }
        // Any client can compute a CRC. A page ends at a key of its listing, so a cursor that names
        // any other key was forged, and would show keys beyond the prefix or range that the program
        // chose.
        let (lower, upper) = self.bounds();
        if !RangeBounds::<[u8]>::contains(&(as_ref(&lower), as_ref(&upper)), key) && !planted(Planted::TrustCursor) {
            return Err(Error::InvalidCursor);
        }
        Ok(key.to_vec())
    }
}

const BASE64URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// RFC 4648, section 5, without padding.
fn base64url_encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let mut bits = 0u32;
        for (index, &byte) in chunk.iter().enumerate() {
            bits |= u32::from(byte) << (16 - 8 * index);
        }
        for index in 0..=chunk.len() {
            let digit = bits >> (18 - 6 * index) & 63;
            #[expect(clippy::indexing_slicing, reason = "there is a digit for each value of six bits")]
            text.push(char::from(BASE64URL[digit as usize]));
        }
    }
    text
}

fn base64url_decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    for chunk in text.as_bytes().chunks(4) {
        let mut bits = 0u32;
        for (index, digit) in chunk.iter().enumerate() {
            let value = BASE64URL.iter().position(|known| known == digit)? as u32;
            bits |= value << (18 - 6 * index);
        }
        let [_, decoded @ ..] = bits.to_be_bytes();
        let length = chunk.len().checked_sub(1).filter(|length| *length > 0)?;
        let (decoded, unused) = decoded.split_at_checked(length)?;
        // Only the canonical encoding of the bytes is accepted.
        if unused.iter().any(|&byte| byte != 0) {
            return None;
        }
        bytes.extend_from_slice(decoded);
    }
    Some(bytes)
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    /// Found by the fuzz target `cursor`.
    #[test]
    fn a_cursor_that_somebody_made_up_does_not_lead_out_of_the_listing() {
        let storage = std::sync::Arc::new(crate::storage::MemStorage::new());
        let store = crate::Store::options().storage(storage).open("/store").unwrap();
        let namespace = store.namespace("N").unwrap();
        for key in ["mine/1", "mine/2", "other/1", "yours/1"] {
            namespace.put(key, "v").unwrap();
        }
        for list in [
            namespace.list().prefix("mine/"),
            namespace.list().prefix("mine/").reverse(),
        ] {
            for outside in ["", "a", "other", "zzz"] {
                let page = list.clone().cursor(list.encode_cursor(outside.as_bytes())).page();
                assert!(matches!(page, Err(Error::InvalidCursor)), "{outside:?}: {page:?}");
            }
            let inside = list.clone().page_size(1).page().unwrap();
            assert_eq!(list.clone().cursor(inside.cursor().unwrap()).page().unwrap().len(), 1);
        }
    }

    #[test]
    fn base64url_goes_there_and_back() {
        for length in 0..70 {
            let bytes: Vec<u8> = (0..length).map(|n| (n * 37 + 11) as u8).collect();
            let text = base64url_encode(&bytes);
            assert_eq!(base64url_decode(&text), Some(bytes), "{text}");
        }
        assert_eq!(base64url_encode(b"fooba"), "Zm9vYmE");
        for wrong in ["A", "AB=", "A*BC", "Zm9vYmF", "Zm9vYmE="] {
            assert_eq!(base64url_decode(wrong), None, "{wrong}");
        }
    }
}
