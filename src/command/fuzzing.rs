//! The fuzz targets of the command and its server. Their bodies are beside what they try, in `cli`
//! and `server`; compiled for tests and for fuzzing only (`fuzz/README.md` tells how to run them),
//! and as ordinary tests run over the corpus and past findings.

pub use crate::cli::fuzzing::{bulk_array, export_resume, import_lines, import_resume, key_text};
pub use crate::server::fuzzing::{
    server_bulk, server_form, server_metadata, server_path, server_request, server_settings,
};

#[cfg(test)]
mod tests {
    use embercask::testing::replay::replay;

    macro_rules! replayed {
        ($($name:ident),+ $(,)?) => {$(
            #[test]
            fn $name() {
                replay(stringify!($name), super::$name);
            }
        )+};
    }

    replayed!(
        bulk_array,
        export_resume,
        import_lines,
        import_resume,
        key_text,
        server_bulk,
        server_form,
        server_metadata,
        server_path,
        server_request,
        server_settings,
    );
}
