//! The versions in this build, from the lock file and from the libraries themselves.

use crate::engine::Description;

const LOCK_FILE: &str = include_str!("../Cargo.lock");

/// The version of an engine's package, and that of the wrapped library; "-" for a yardstick.
pub fn of_engine(engine: &Description) -> String {
    let Some(package) = engine.package else {
        return "-".into();
    };
    let version = of_package(package);
    match engine.library {
        Some(library) => format!("{} ({package} {version})", library()),
        None => version.to_owned(),
    }
}

/// The version of a package in this build.
pub fn of_package(package: &str) -> &'static str {
    let name = format!("name = \"{package}\"");
    let mut lines = LOCK_FILE.lines().skip_while(|line| *line != name).skip(1);
    let version = lines.next().and_then(|line| line.strip_prefix("version = "));
    version.map_or("unknown", |version| version.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_engine_has_a_version() {
        for engine in crate::engines::ALL {
            assert!(!super::of_engine(engine).contains("unknown"), "{}", engine.name);
        }
    }
}
