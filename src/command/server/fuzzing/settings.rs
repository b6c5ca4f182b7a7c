//! Configuration files and flags.

use std::path::Path;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tracing_subscriber::EnvFilter;

use crate::common::failure::Outcome;
use crate::common::fuzzing::told;
use crate::server::arguments::Serve;
use crate::server::settings::{Settings, parse};
use embercask::testing::input::Input;

use super::meaning::Meaning;

/// A file with any text, with or without flags: accepted if a second reader accepts it, and with
/// the same meaning. Settings written out as a file read back the same. Without a token there is no
/// listener that others can reach.
pub fn server_settings(data: &[u8]) {
    let mut input = Input::new(data);
    let arguments = flags(&mut input);
    let text = String::from_utf8_lossy(input.rest());
    let settings = read(&text, &arguments);
    let file = toml::from_str::<toml::Table>(&text).ok();
    if file.is_none() && has_long_number(&text) {
        return;
    }
    let expected = file.and_then(|file| Meaning::of(&file, &arguments));
    let settings = match (settings, expected) {
        (Ok(settings), Some(expected)) => {
            assert_eq!(Meaning::shown(&settings), expected);
            settings
        }
        (Err(failure), None) => return assert!(!told(&failure).is_empty()),
        (Ok(settings), None) => panic!("{:?} should be refused", Meaning::shown(&settings)),
        (Err(failure), Some(expected)) => panic!("{expected:?} is refused: {failure:?}"),
    };
    let meaning = Meaning::shown(&settings);
    let again = read(&meaning.written(), &Serve::default()).expect("settings that were written out are accepted");
    assert_eq!(Meaning::shown(&again), meaning);

    // Using the settings does not panic.
    let _ = Semaphore::new(settings.max_connections);
    assert!(EnvFilter::try_new(&settings.log).is_ok());
    for timeout in [settings.idle_timeout, settings.body_timeout, settings.stop_timeout] {
        assert!(
            Instant::now()
                .checked_add(timeout + Duration::from_secs(1 << 20))
                .is_some()
        );
    }
    if settings.tokens.is_empty() {
        assert!(
            !settings.page && meaning.addresses().all(is_only_for_this_machine),
            "{meaning:?}"
        );
    }
}

fn read(text: &str, arguments: &Serve) -> Outcome<Settings> {
    parse(Path::new("fuzzed.toml"), text).and_then(|file| Settings::with(file, arguments, None))
}

/// Flags; the first byte selects those that are given.
fn flags(input: &mut Input<'_>) -> Serve {
    let given = input.u8();
    let mut text = |bit: u8| {
        (given >> bit & 1 != 0).then(|| {
            let length = usize::from(input.u8());
            String::from_utf8_lossy(input.bytes(length)).into_owned()
        })
    };
    let (listen, binding, binding_for, token) = (text(0), text(1), text(2), text(3));
    Serve {
        listen,
        binding,
        binding_for: binding_for.into_iter().collect(),
        token,
        durability: text(4),
        page: (given >> 5 & 1 != 0).then_some(given >> 6 & 1 != 0),
        idle_seconds: (given >> 7 != 0).then_some(u64::MAX),
        ..Serve::default()
    }
}

/// Whether a number is so long that the readers may differ: a table has 64 bits with a sign,
/// settings have 64 without.
fn has_long_number(text: &str) -> bool {
    let words = text.split(|character: char| !character.is_ascii_alphanumeric() && character != '_');
    let mut numbers = words.filter(|word| word.starts_with(|character: char| character.is_ascii_digit()));
    numbers.any(|number| number.len() >= 16)
}

pub(super) fn is_only_for_this_machine(address: &str) -> bool {
    ["unix:", "127.", "[::1]:", "[::1%"]
        .iter()
        .any(|local| address.starts_with(local))
}
