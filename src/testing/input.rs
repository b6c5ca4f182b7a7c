//! Numbers and byte strings read from a fuzzer's input, in order. Reads beyond the end give zeros,
//! so that every input is valid.

/// The rest of the input.
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// Reads from the start of these bytes.
    pub fn new(bytes: &'a [u8]) -> Input<'a> {
        Input(bytes)
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Up to `length` bytes; fewer at the end.
    pub fn bytes(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// All remaining bytes.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.bytes(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    /// The next byte.
    pub fn u8(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    /// The next two bytes, little-endian.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    /// The next four bytes, little-endian.
    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    /// The next eight bytes, little-endian.
    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// A number below `bound`, from one byte.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::from(self.u8()) % bound
    }

    /// One of these, from one byte.
    pub fn choose<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// Damages `bytes` as the input says: flips a bit, replaces a byte, zeroes a range, truncates, or
/// copies a block over another.
pub fn strike(bytes: &mut Vec<u8>, input: &mut Input<'_>) {
    let (at, how) = (usize::from(input.u16()), input.u8());
    // Only after reading from the input, so that a caller that strikes until the input is used up
    // terminates.
    if bytes.is_empty() {
        return;
    }
    let at = at % bytes.len();
    let size = 8 << (how >> 3 & 3);
    match how & 7 {
        0..=2 => bytes[at] ^= 1 << (how >> 3 & 7),
        3 => bytes[at] = input.u8(),
        4 => {
            let end = bytes.len().min(at + size);
            bytes[at..end].fill(0);
        }
        5 => bytes.truncate(at),
        _ => {
            let to = (usize::from(input.u16()) % bytes.len()) & !7;
            let from = at & !7;
            let length = size.min(bytes.len() - from).min(bytes.len() - to);
            bytes.copy_within(from..from + length, to);
        }
    }
}
