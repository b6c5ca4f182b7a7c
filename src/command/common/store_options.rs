//! Options of a store by their names in the library, as `--option NAME=VALUE`, in the environment
//! and in the settings file of the server.

use std::collections::BTreeMap;

use embercask::{Options, ReadMode, RingMode};
use serde::Deserialize;

use super::duration::duration;
use super::failure::{Failure, Outcome};
use super::text::quoted;

/// An option: its name, which values it has, and a function that sets it.
struct StoreOption {
    name: &'static str,
    accepts: &'static str,
    apply: fn(Options, &str) -> Option<Options>,
}

const BYTES: &str = "a number of bytes, or with KiB, MiB or GiB";
const BYTES_OR_OFF: &str = "a number of bytes, or with KiB, MiB or GiB, or off";
const TIME: &str = "a time such as 100ms or 10s";

const fn option(name: &'static str, accepts: &'static str, apply: fn(Options, &str) -> Option<Options>) -> StoreOption {
    StoreOption { name, accepts, apply }
}

#[rustfmt::skip]
static TABLE: [StoreOption; 12] = [
    option("read_mode", "map or pread", |options, text| Some(options.read_mode(match text {
        "map" => ReadMode::Map,
        "pread" => ReadMode::Pread,
        _ => return None,
    }))),
    option("ring", "auto, always or never", |options, text| Some(options.ring(match text {
        "auto" => RingMode::Auto,
        "always" => RingMode::Always,
        "never" => RingMode::Never,
        _ => return None,
    }))),
    option("segment_bytes", BYTES, |options, text| Some(options.segment_bytes(bytes(text)?))),
    option("buffer_bytes", BYTES, |options, text| Some(options.buffer_bytes(bytes(text)?))),
    option("max_disk_bytes", BYTES_OR_OFF, |options, text| Some(options.max_disk_bytes(or_off(text, bytes)?))),
    option("flush_interval", TIME, |options, text| Some(options.flush_interval(duration(text).ok()?))),
    option("sync_interval", "a time such as 500ms or 10s, or off", |options, text| {
        Some(options.sync_interval(or_off(text, |text| duration(text).ok())?))
    }),
    option("index_file", "true or false", |options, text| Some(options.index_file(text.parse().ok()?))),
    option("waste_ceiling", "a number from 1.1 to 10", |options, text| {
        let ratio = text.parse::<f64>().ok().filter(|ratio| (1.1..=10.0).contains(ratio))?;
        Some(options.waste_ceiling(ratio))
    }),
    option("compaction_bytes_per_second", BYTES_OR_OFF, |options, text| {
        Some(options.compaction_bytes_per_second(or_off(text, bytes)?))
    }),
    option("scrub_bytes_per_second", BYTES_OR_OFF, |options, text| {
        Some(options.scrub_bytes_per_second(or_off(text, bytes)?))
    }),
    option("expiry_grace", TIME, |options, text| Some(options.expiry_grace(duration(text).ok()?))),
];

fn bytes(text: &str) -> Option<u64> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30)];
    let unit = units.iter().find(|(unit, _)| text.ends_with(unit));
    let (number, shift) = unit.map_or((text, 0), |(unit, shift)| {
        (text.trim_end_matches(unit).trim_end(), *shift)
    });
    let is_number = number.bytes().all(|digit| digit.is_ascii_digit());
    let number = number.parse::<u64>().ok().filter(|_| is_number)?;
    number.checked_mul(1 << shift)
}

/// The value, or None for `off`; nothing for what is neither.
#[expect(clippy::option_option, reason = "off is not the same as wrong")]
fn or_off<T>(text: &str, parse: impl Fn(&str) -> Option<T>) -> Option<Option<T>> {
    match text {
        "off" => Some(None),
        text => parse(text).map(Some),
    }
}

/// Options that were chosen, by name, with their values as text. Each is known to be good.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct StoreOptions(BTreeMap<String, String>);

/// A value in the settings file.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "the value of an option is text, a number, true or false")]
pub(crate) enum Scalar {
    Text(String),
    Whole(i64),
    Number(f64),
    Flag(bool),
}

impl std::fmt::Display for Scalar {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Scalar::Text(text) => formatter.write_str(text),
            Scalar::Whole(number) => number.fmt(formatter),
            Scalar::Number(number) => number.fmt(formatter),
            Scalar::Flag(flag) => flag.fmt(formatter),
        }
    }
}

impl StoreOptions {
    /// Of a table of the settings file.
    pub(crate) fn of_table(table: &BTreeMap<String, Scalar>) -> Outcome<StoreOptions> {
        let mut chosen = StoreOptions::default();
        for (name, value) in table {
            chosen.choose(name, &value.to_string())?;
        }
        Ok(chosen)
    }

    /// Of flags, each NAME=VALUE.
    pub(crate) fn of_pairs(pairs: &[String]) -> Outcome<StoreOptions> {
        let mut chosen = StoreOptions::default();
        for pair in pairs {
            let (name, value) = pair
                .split_once('=')
                .ok_or_else(|| Failure::usage(format!("{} is not NAME=VALUE", quoted(pair.as_bytes())), names()))?;
            chosen.choose(name.trim(), value.trim())?;
        }
        Ok(chosen)
    }

    fn choose(&mut self, name: &str, value: &str) -> Outcome {
        let option = TABLE
            .iter()
            .find(|option| option.name == name)
            .ok_or_else(|| Failure::usage(format!("a store has no option {}", quoted(name.as_bytes())), names()))?;
        if (option.apply)(Options::default(), value).is_none() {
            return Err(Failure::usage(
                format!("{} is no value of the option {name}", quoted(value.as_bytes())),
                format!("{name} is {}", option.accepts),
            ));
        }
        self.0.insert(name.to_owned(), value.to_owned());
        Ok(())
    }

    /// These, and of the others those that are not among these.
    pub(crate) fn or(mut self, others: &StoreOptions) -> StoreOptions {
        for (name, value) in &others.0 {
            self.0.entry(name.clone()).or_insert_with(|| value.clone());
        }
        self
    }

    /// Sets them.
    pub(crate) fn apply(&self, options: Options) -> Options {
        TABLE.iter().fold(options, |options, option| {
            let value = self.0.get(option.name);
            // All are good; so the copy is used only if there is no value.
            value
                .and_then(|value| (option.apply)(options.clone(), value))
                .unwrap_or(options)
        })
    }

    #[cfg(any(test, fuzzing))]
    pub(crate) fn as_map(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

/// All names, as a hint.
fn names() -> String {
    let names: Vec<&str> = TABLE.iter().map(|option| option.name).collect();
    format!("options are {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For each option a value that is not its default, and how it is shown.
    const CASES: [(&str, &str); 12] = [
        ("read_mode=pread", "read_mode: Pread"),
        ("ring=never", "ring: Never"),
        ("segment_bytes=4KiB", "segment_bytes: 4096"),
        ("buffer_bytes=1 GiB", "buffer_bytes: 1073741824"),
        ("max_disk_bytes=2MiB", "max_disk_bytes: Some(2097152)"),
        ("flush_interval=20ms", "flush_interval: 20ms"),
        ("sync_interval=off", "sync_interval: None"),
        ("index_file=false", "index_file: false"),
        ("waste_ceiling=2.5", "waste_ceiling: 2.5"),
        ("compaction_bytes_per_second=3", "compaction_bytes_per_second: Some(3)"),
        ("scrub_bytes_per_second=1MiB", "scrub_bytes_per_second: Some(1048576)"),
        ("expiry_grace=1m", "expiry_grace: 60s"),
    ];

    #[test]
    fn each_option_is_set_by_its_name_and_documented_once() {
        let documentation = include_str!("../../../docs/command-line.md");
        let usual = format!("{:?}", Options::default());
        for (option, (pair, shown)) in TABLE.iter().zip(CASES) {
            assert!(pair.starts_with(&format!("{}=", option.name)), "{pair}");
            let chosen = StoreOptions::of_pairs(&[pair.to_owned()]).unwrap();
            let options = format!("{:?}", chosen.apply(Options::default()));
            assert!(options.contains(shown) && !usual.contains(shown), "{options}");
            let row = format!("| `{}` |", option.name);
            assert_eq!(documentation.matches(&row).count(), 1, "{row}");
        }
    }

    #[test]
    fn what_is_no_option_or_no_value_is_told_with_what_would_be_one() {
        for (pair, hint) in [
            ("read_mode", "options are read_mode, ring"),
            ("mode=map", "options are read_mode, ring"),
            ("=map", "options are read_mode, ring"),
            ("read_mode=mmap", "map or pread"),
            ("segment_bytes=-1", "KiB"),
            ("segment_bytes=+1", "KiB"),
            ("segment_bytes=", "KiB"),
            ("segment_bytes=99999999999GiB", "KiB"),
            ("waste_ceiling=NaN", "1.1 to 10"),
            ("waste_ceiling=1", "1.1 to 10"),
            ("sync_interval=soon", "or off"),
            ("flush_interval=off", "100ms"),
            ("index_file=yes", "true or false"),
        ] {
            let Err(Failure::Told { hint: told, .. }) = StoreOptions::of_pairs(&[pair.to_owned()]) else {
                panic!("{pair} is accepted")
            };
            assert!(told.contains(hint), "{pair}: {told}");
        }
    }

    #[test]
    fn a_table_has_numbers_and_flags_and_what_is_chosen_first_counts() {
        let table = "read_mode = \"pread\"\nsegment_bytes = 4096\nwaste_ceiling = 2.5\nindex_file = false";
        let of_file = StoreOptions::of_table(&toml::from_str(table).unwrap()).unwrap();
        let of_flags = StoreOptions::of_pairs(&["segment_bytes=8KiB".to_owned()]).unwrap();
        let options = format!("{:?}", of_flags.or(&of_file).apply(Options::default()));
        for shown in [
            "read_mode: Pread",
            "segment_bytes: 8192",
            "waste_ceiling: 2.5",
            "index_file: false",
        ] {
            assert!(options.contains(shown), "{options}");
        }
        let refused = toml::from_str::<BTreeMap<String, Scalar>>("ring = [\"auto\"]").unwrap_err();
        assert!(refused.message().contains("text, a number, true or false"), "{refused}");
    }
}
