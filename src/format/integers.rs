//! Integers as stored on disk: little-endian and of fixed width. The only place that decides the
//! byte order, but for keys: `encode_number` in `src/index/namespaces.rs` writes the number of a
//! namespace big-endian, so that the keys are in the order of the numbers.

use byteorder::{ByteOrder, LittleEndian};

/// An integer that can be stored.
pub(crate) trait Stored: Sized {
    type Bytes: AsRef<[u8]>;

    fn to_stored(self) -> Self::Bytes;
    fn from_stored(bytes: Self::Bytes) -> Self;
}

macro_rules! stored {
    ($($integer:ty, $read:ident, $write:ident;)*) => {$(
        impl Stored for $integer {
            type Bytes = [u8; size_of::<$integer>()];

            #[inline]
            fn to_stored(self) -> Self::Bytes {
                let mut bytes = Self::Bytes::default();
                LittleEndian::$write(&mut bytes, self);
                bytes
            }

            #[inline]
            fn from_stored(bytes: Self::Bytes) -> Self {
                LittleEndian::$read(&bytes)
            }
        }
    )*};
}

stored! {
    u16, read_u16, write_u16;
    u32, read_u32, write_u32;
    u64, read_u64, write_u64;
    u128, read_u128, write_u128;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_byte_comes_first() {
        assert_eq!(0x0102_u16.to_stored(), [2, 1]);
        assert_eq!(0x0102_0304_u32.to_stored(), [4, 3, 2, 1]);
        assert_eq!(u64::from_stored([1, 0, 0, 0, 0, 0, 0, 0]), 1);
        assert_eq!(u128::from_stored(u128::MAX.to_stored()), u128::MAX);
    }
}
