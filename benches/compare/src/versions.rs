//! The versions that were built in, from the lock file.

const LOCK_FILE: &str = include_str!("../Cargo.lock");

/// The version of a package; a yardstick has none.
pub fn version(package: Option<&str>) -> String {
    let Some(package) = package else { return "-".into() };
    let name = format!("name = \"{package}\"");
    let mut lines = LOCK_FILE.lines().skip_while(|line| *line != name).skip(1);
    let version = lines.next().and_then(|line| line.strip_prefix("version = "));
    version.map_or_else(|| "unknown".into(), |version| version.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_engine_has_a_version() {
        for engine in crate::engines::ALL {
            assert_ne!(super::version(engine.package), "unknown", "{}", engine.name);
        }
    }
}
