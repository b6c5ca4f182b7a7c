//! Keys and values of numbers. Making them uses little memory, so they do not compete with an
//! engine for caches. Every value names its key and its write, so that any wrong answer is
//! detected.

use crate::random::mix;
use anyhow::{Result, ensure};

/// Number of keys in a group, which share a prefix.
pub const GROUP: u64 = 1_000;
/// The first word of a value holds key number and generation.
pub const VALUE_BYTES_MIN: usize = 8;

const KEY_BYTES_MIN: usize = 16;
const KEY_BYTES_MAX: usize = 40;
const GENERATION_BITS: u32 = 16;

/// A key of 16 to 40 bytes, kept on the stack.
#[derive(Clone, Copy)]
pub struct Key {
    bytes: [u8; 48],
    length: u8,
}

impl std::ops::Deref for Key {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Key {
    fn of_words(words: [u64; 3], length: usize) -> Key {
        let mut bytes = [0; 48];
        for (slot, word) in bytes.chunks_exact_mut(16).zip(words) {
            write_hex(slot, word);
        }
        Key {
            bytes,
            length: length.clamp(KEY_BYTES_MIN, KEY_BYTES_MAX) as u8,
        }
    }

    /// Keys of ascending numbers are in no order.
    pub fn random(number: u64) -> Key {
        let bits = mix(number);
        Key::of_words([bits, mix(bits), mix(bits ^ 1)], length_of(bits))
    }

    /// Keys of ascending numbers ascend.
    pub fn ordered(number: u64) -> Key {
        let bits = mix(number);
        Key::of_words([number, bits, mix(bits)], length_of(bits))
    }

    /// Keys of which each thousand shares a prefix; see [`prefix`].
    pub fn grouped(number: u64) -> Key {
        let bits = mix(number);
        let place = (number / GROUP) << 28 | (number % GROUP) << 12 | bits & 0xfff;
        let mut key = Key::of_words([place, bits, mix(bits)], length_of(bits));
        key.bytes[9] = b'/';
        key
    }

    /// A copy of a key returned by an engine.
    pub fn copy_of(key: &[u8]) -> Result<Key> {
        ensure!(
            key.len() <= KEY_BYTES_MAX,
            "a key of {} bytes was never written",
            key.len()
        );
        let mut bytes = [0; 48];
        bytes[..key.len()].copy_from_slice(key);
        Ok(Key {
            bytes,
            length: key.len() as u8,
        })
    }

    /// A key of the same form as [`Key::random`] that is never stored.
    pub fn absent(number: u64) -> Key {
        Key::random(number | 1 << 63)
    }
}

/// The prefix of the keys of a group.
pub fn prefix(group: u64) -> Vec<u8> {
    let mut hexadecimal = [0; 16];
    write_hex(&mut hexadecimal, group << 28);
    let mut prefix = hexadecimal[..9].to_vec();
    prefix.push(b'/');
    prefix
}

fn length_of(bits: u64) -> usize {
    KEY_BYTES_MIN + (bits % (KEY_BYTES_MAX - KEY_BYTES_MIN + 1) as u64) as usize
}

fn write_hex(slot: &mut [u8], word: u64) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in slot.chunks_exact_mut(2).zip(word.to_be_bytes()) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

/// Writes the value of a key number in a generation: 0 for the first put, and one more for each
/// overwrite.
pub fn write_value(value: &mut [u8], number: u64, generation: u16) {
    let first = first_word(number, generation);
    let mut word = mix(first);
    let (head, rest) = value.split_at_mut(VALUE_BYTES_MIN);
    head.copy_from_slice(&first.to_le_bytes());
    for slot in rest.chunks_mut(8) {
        slot.copy_from_slice(&word.to_le_bytes()[..slot.len()]);
        word = next_word(word);
    }
}

/// A value in a new vector.
pub fn value(number: u64, generation: u16, bytes: usize) -> Vec<u8> {
    let mut value = vec![0; bytes];
    write_value(&mut value, number, generation);
    value
}

/// Checks every byte of a value and returns its generation.
pub fn check_value(value: Option<&[u8]>, number: u64, bytes: usize) -> Result<u16> {
    let Some(value) = value else {
        anyhow::bail!("the key of number {number} is absent");
    };
    ensure!(
        value.len() == bytes,
        "the value of number {number} has {} bytes instead of {bytes}",
        value.len()
    );
    let (head, rest) = value.split_at(VALUE_BYTES_MIN);
    let first = u64::from_le_bytes(head.try_into()?);
    ensure!(
        first >> GENERATION_BITS == number,
        "the value of number {number} belongs to another key"
    );
    let mut word = mix(first);
    let mut equal = true;
    for found in rest.chunks(8) {
        equal &= found == &word.to_le_bytes()[..found.len()];
        word = next_word(word);
    }
    ensure!(equal, "the value of number {number} is damaged");
    Ok(first as u16)
}

/// Checks every byte of a value whose number is known only from the value itself, which suffices to
/// detect damage.
pub fn check_any_value(value: &[u8], bytes: usize) -> Result<u64> {
    let head: [u8; VALUE_BYTES_MIN] = value.get(..VALUE_BYTES_MIN).unwrap_or_default().try_into()?;
    let number = u64::from_le_bytes(head) >> GENERATION_BITS;
    check_value(Some(value), number, bytes).map(|_| number)
}

fn first_word(number: u64, generation: u16) -> u64 {
    number << GENERATION_BITS | u64::from(generation)
}

/// Cheap, so that making and checking values costs little compared with any engine, and
/// incompressible.
fn next_word(word: u64) -> u64 {
    word.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_distinct_and_of_16_to_40_bytes() {
        for make in [Key::random, Key::ordered, Key::grouped, Key::absent] {
            let keys: std::collections::HashSet<Vec<u8>> = (0..50_000).map(|number| make(number).to_vec()).collect();
            assert_eq!(keys.len(), 50_000);
            assert!(keys.iter().all(|key| (16..=40).contains(&key.len())));
        }
    }

    #[test]
    fn ordered_keys_ascend_and_a_group_shares_its_prefix() {
        assert!((0..10_000).all(|number| *Key::ordered(number) < *Key::ordered(number + 1)));
        assert!((0..10_000).all(|number| Key::grouped(number).starts_with(&prefix(number / GROUP))));
    }

    #[test]
    fn a_value_tells_its_generation_and_damage_is_found() {
        for bytes in [8, 9, 100, 1000] {
            let mut stored = value(7, 3, bytes);
            assert_eq!(check_value(Some(&stored), 7, bytes).ok(), Some(3));
            assert!(check_value(Some(&stored), 8, bytes).is_err());
            if bytes > 8 {
                stored[bytes - 1] ^= 1;
                assert!(check_value(Some(&stored), 7, bytes).is_err());
            }
        }
    }
}
