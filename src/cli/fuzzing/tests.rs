//! Every target of the command and its server over its corpus and over what was found in the past.

use super::replay::replay;

macro_rules! replayed {
    ($($module:path: $($name:ident),+;)+) => {$($(
        #[test]
        fn $name() {
            use $module as bodies;
            replay(stringify!($name), bodies::$name);
        }
    )+)+};
}

replayed! {
    crate::cli::fuzzing: bulk_array, export_resume, import_lines, import_resume, key_text;
}

#[cfg(feature = "server")]
replayed! {
    crate::server::fuzzing: server_request, server_settings;
}
