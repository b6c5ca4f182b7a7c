//! Every target over its corpus and over what was found in the past.

use super::replay::replay;

macro_rules! replayed {
    ($($name:ident),+) => {$(
        #[test]
        fn $name() {
            replay(stringify!($name), super::$name);
        }
    )+};
}

replayed!(
    cursor,
    file_name,
    hint_load,
    index_load,
    manifest_load,
    namespace_record,
    record_decode,
    segment_scan
);

#[cfg(feature = "server-parsers")]
replayed!(server_bulk, server_form, server_metadata, server_path);
