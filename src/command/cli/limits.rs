//! What Workers KV, and with it `embercask serve`, does not take, though a store does.

use embercask::Limits;
use serde_json::value::RawValue;

use crate::common::failure::Failure;

const LIMITS: Limits = Limits::WORKERS_KV;

/// Why a pair is beyond the limits of Workers KV, if it is.
pub(crate) fn beyond_workers_kv(key: &[u8], value: &[u8], metadata: Option<&[u8]>) -> Option<String> {
    let (key_most, metadata_most) = (LIMITS.key_bytes_max, LIMITS.metadata_bytes_max);
    if key.len() > key_most {
        return Some(format!("the key is longer than {key_most} bytes"));
    }
    if matches!(key, b"." | b"..") {
        return Some("the key is `.` or `..`, which no URL can name".to_owned());
    }
    if std::str::from_utf8(key).is_err() {
        return Some("the key is not text (UTF-8)".to_owned());
    }
    if value.len() > LIMITS.value_bytes_max {
        return Some(format!("the value is larger than {} MiB", LIMITS.value_bytes_max >> 20));
    }
    let metadata = metadata?;
    if metadata.len() > metadata_most {
        return Some(format!("the metadata is longer than {metadata_most} bytes"));
    }
    serde_json::from_slice::<&RawValue>(metadata)
        .is_err()
        .then(|| "the metadata is not JSON".to_owned())
}

/// Such a pair in a remark.
pub(crate) fn remark(why: &str) -> String {
    format!("{why}, beyond the limits of Workers KV: clients of `embercask serve` cannot rely on it")
}

/// The failure for such a pair, where the user wants it refused.
pub(crate) fn refused(why: &str) -> Failure {
    Failure::usage(
        format!("{why}, beyond the limits of Workers KV"),
        "without --workers-kv-limits a store takes it",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_are_those_of_the_server() {
        let is_beyond = |key: &[u8], length, metadata| beyond_workers_kv(key, &vec![b'v'; length], metadata).is_some();
        let quoted = |length: usize| format!("\"{}\"", "m".repeat(length - 2)).into_bytes();
        let (longest, too_long) = (quoted(1024), quoted(1025));
        for (key, length, metadata) in [
            (&b"k"[..], 0, None),
            (&[b'k'; 512], 25 << 20, Some(&longest[..])),
            (b"...", 1, Some(b"5")),
        ] {
            assert!(!is_beyond(key, length, metadata));
        }
        for (key, length, metadata) in [
            (&[b'k'; 513][..], 0, None),
            (b".", 0, None),
            (b"..", 0, None),
            (b"\xff", 0, None),
            (b"k", (25 << 20) + 1, None),
            (b"k", 0, Some(&too_long[..])),
            (b"k", 0, Some(b"not JSON")),
            (b"k", 0, Some(b"")),
        ] {
            assert!(is_beyond(key, length, metadata), "{}", key.escape_ascii());
        }
    }
}
