//! Lengths of time and times as people write them: `90`, `15m`, `1h30m`.

use std::time::Duration;

const NANOSECONDS_PER_SECOND: u128 = 1_000_000_000;
/// Units, with their nanoseconds. `ms` precedes `m`, which it begins with.
const UNITS: [(&str, u128); 6] = [
    ("ms", 1_000_000),
    ("s", NANOSECONDS_PER_SECOND),
    ("m", 60 * NANOSECONDS_PER_SECOND),
    ("h", 3600 * NANOSECONDS_PER_SECOND),
    ("d", 24 * 3600 * NANOSECONDS_PER_SECOND),
    ("w", 7 * 24 * 3600 * NANOSECONDS_PER_SECOND),
];
/// More digits behind the point than this count for nothing.
const FRACTION_DIGITS: usize = 9;
/// The last second of the year 9999.
const EXPIRATION_MAX: u64 = 253_402_300_799;

/// A length of time: a number of seconds, or numbers with units.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    nanoseconds(text)
        .and_then(|nanoseconds| {
            let seconds = u64::try_from(nanoseconds / NANOSECONDS_PER_SECOND).ok()?;
            let rest = u32::try_from(nanoseconds % NANOSECONDS_PER_SECOND).ok()?;
            Some(Duration::new(seconds, rest))
        })
        .ok_or_else(|| "give seconds, or numbers with the units ms, s, m, h, d, w: 90, 15m, 1h30m, 7d".to_owned())
}

/// As [`duration`], in whole seconds.
pub(crate) fn whole_seconds(text: &str) -> Result<u64, String> {
    let duration = duration(text)?;
    if duration.subsec_nanos() > 0 {
        return Err("the time must be in whole seconds".to_owned());
    }
    Ok(duration.as_secs())
}

/// A time, in seconds since the epoch.
pub(crate) fn expiration(text: &str) -> Result<u64, String> {
    let seconds: u64 = text
        .parse()
        .map_err(|_| "give a time in seconds since the epoch; --ttl takes a length of time".to_owned())?;
    if seconds > EXPIRATION_MAX {
        return Err(format!(
            "this is beyond the year 9999; if it is in milliseconds, give {} seconds",
            seconds / 1000
        ));
    }
    Ok(seconds)
}

fn nanoseconds(text: &str) -> Option<u128> {
    let mut rest = text;
    let mut sum = 0_u128;
    while !rest.is_empty() {
        let digits = rest.find(|character: char| !character.is_ascii_digit() && character != '.');
        let (number, behind) = rest.split_at(digits.unwrap_or(rest.len()));
        let unit = UNITS.iter().find(|(name, _)| behind.starts_with(name));
        let (nanoseconds, after) = match unit {
            Some((name, nanoseconds)) => (*nanoseconds, behind.get(name.len()..)?),
            // Without a unit only a number alone: `1h30` could mean anything.
            None if number == text => (NANOSECONDS_PER_SECOND, behind),
            None => return None,
        };
        sum = sum.checked_add(product(number, nanoseconds)?)?;
        rest = after;
    }
    (!text.is_empty()).then_some(sum)
}

/// A decimal number, perhaps with a fraction, times a unit.
fn product(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = match number.split_once('.') {
        Some((_, "")) => return None,
        Some((whole, fraction)) => (whole, fraction),
        None => (number, ""),
    };
    let whole = whole.parse::<u128>().ok()?.checked_mul(unit)?;
    let mut rest = 0;
    let mut scale = unit;
    for (place, digit) in fraction.chars().enumerate() {
        let digit = digit.to_digit(10)?;
        if place < FRACTION_DIGITS {
            scale /= 10;
            rest += u128::from(digit) * scale;
        }
    }
    whole.checked_add(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_are_seconds_or_have_units() {
        for (text, ms) in [
            ("0", 0),
            ("90", 90_000),
            ("0.05", 50),
            ("250ms", 250),
            ("90s", 90_000),
            ("15m", 900_000),
            ("1.5h", 5_400_000),
            ("1h30m", 5_400_000),
            ("7d", 604_800_000),
            ("2w", 1_209_600_000),
            ("1m1ms", 60_001),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for wrong in [
            "",
            " ",
            "h",
            "1h30",
            "-1",
            "+1",
            "1 h",
            "1y",
            "1H",
            "1e3",
            "nan",
            "inf",
            "1.",
            ".5",
            "1.2.3",
            "1,5",
            "٣",
            "1hour",
            "99999999999999999999999999999999999999999",
            "99999999999999999999w",
        ] {
            let told = duration(wrong).unwrap_err();
            assert!(told.contains("ms, s, m, h, d, w"), "{wrong}: {told}");
        }
        assert_eq!(whole_seconds("1.5h"), Ok(5400));
        assert!(whole_seconds("1.5").is_err());
        assert!(whole_seconds("10ms").is_err());
    }

    #[test]
    fn a_time_in_milliseconds_is_told_from_one_in_seconds() {
        assert_eq!(expiration("1795689695"), Ok(1_795_689_695));
        assert_eq!(expiration("253402300799"), Ok(EXPIRATION_MAX));
        let told = expiration("1795689695332").unwrap_err();
        assert!(told.contains("give 1795689695 seconds"), "{told}");
        assert!(expiration("1h").unwrap_err().contains("--ttl"));
    }
}
