//! Names of users.

use std::fmt;
use std::str::FromStr;

/// The name of a user: 1 to 64 letters, digits, `-`, `_` and `.`. So no name contains the `/` that
/// ends it in a key, and the prefix of one user is not the beginning of another's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserName(String);

/// Why a name is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidName;

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name has 1 to 64 letters, digits, `-`, `_` and `.`")
    }
}

impl std::error::Error for InvalidName {}

impl FromStr for UserName {
    type Err = InvalidName;

    fn from_str(name: &str) -> Result<UserName, InvalidName> {
        let is_allowed = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
        if (1..=64).contains(&name.chars().count()) && name.chars().all(is_allowed) {
            Ok(UserName(name.to_owned()))
        } else {
            Err(InvalidName)
        }
    }
}

impl UserName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
