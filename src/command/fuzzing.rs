//! The fuzz targets of the command and its server. Their bodies are next to the code under test, in
//! `cli` and `server`, and compiled only for tests and for fuzzing (`fuzz/README.md` says how to
//! run them). As ordinary tests they run over the corpus and past findings.

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
