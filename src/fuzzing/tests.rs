//! Every target over its corpus and over past findings.

use crate::testing::replay::replay;

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
