//! What repeats in an input: its literals and sequences.
//!
//! ```text
//!   input   a b c d e f X a b c d e f Y Y        literals of a sequence, then a repetition of `length` bytes from
//!           '-- literals -' '- length -'         `offset` bytes before: here 7, 6 and 7, and Y Y are left
//! ```
//!
//! A table has for the hash of four bytes where they were met last. The first repetition that is found is taken and
//! extended in both directions, unless one from as far as the last is as good: that takes fewer bits.

use super::{SPACE, sequences::Sequence, table::Table};

/// Shorter repetitions take as much space as literals. With 255 sequences at most, their count fits into a byte.
const SHORTEST: usize = 4;

const HASH_BITS: u32 = 9;

/// The places where bytes were met last, by their hash.
type Places = Table<u16, { 1 << HASH_BITS }>;

/// Words are read and written with what stands behind the last byte.
const BEHIND: usize = 16;

/// Bytes of an input, or of its literals.
struct Bytes([u8; SPACE + BEHIND]);

impl Bytes {
    #[inline(always)]
    fn read<const N: usize>(&self, at: usize) -> [u8; N] {
        debug_assert!(at < SPACE && N <= BEHIND, "{at}");
        let bytes = self.0.get(at % SPACE..).and_then(<[u8]>::first_chunk);
        bytes.copied().unwrap_or([0; N])
    }

    #[inline(always)]
    fn write<const N: usize>(&mut self, at: usize, bytes: [u8; N]) {
        debug_assert!(at < SPACE && N <= BEHIND, "{at}");
        let space = self.0.get_mut(at % SPACE..);
        if let Some(space) = space.and_then(<[u8]>::first_chunk_mut) {
            *space = bytes;
        }
    }

    /// How many bytes are the same from here and from there on, up to `end`.
    #[inline(always)]
    fn common(&self, here: usize, there: usize, end: usize) -> usize {
        let mut count = 0;
        while here + count < end {
            let word = |at| u64::from_le_bytes(self.read(at + count));
            let differs = word(here) ^ word(there);
            count += differs.trailing_zeros() as usize / 8;
            if differs != 0 {
                break;
            }
        }
        count.min(end - here)
    }
}

/// What a block is made of.
pub(super) struct Block {
    literals: Bytes,
    literal_count: usize,
    sequences: Table<Sequence, 256>,
    sequence_count: usize,
}

impl Block {
    pub(super) const EMPTY: Self = Self {
        literals: Bytes([0; SPACE + BEHIND]),
        literal_count: 0,
        sequences: Table::EMPTY,
        sequence_count: 0,
    };

    /// The literals of all sequences, and behind them those that no sequence follows.
    pub(super) fn literals(&self) -> &[u8] {
        let literals = self.literals.0.get(..self.literal_count);
        literals.unwrap_or_default()
    }

    pub(super) fn sequences(&self) -> &[Sequence] {
        self.sequences.first(self.sequence_count)
    }

    /// Takes an input apart, of [`LARGEST`](super::LARGEST) bytes at most.
    pub(super) fn find(&mut self, input: &[u8]) {
        let mut bytes = Bytes([0; SPACE + BEHIND]);
        let end = super::copy(input, &mut bytes.0).unwrap_or_default();
        let mut places = Places::EMPTY;
        let mut recent = Recent([1, 4, 8]);
        // What no sequence has yet starts there. A hash that was not met leads to the first byte.
        let mut start = 0;
        let mut here = 1;
        while here + SHORTEST <= end {
            let next = bytes.read(here);
            let hash = hash(next);
            let there = usize::from(places.get(hash));
            places.set(hash, here as u16);
            if bytes.read(there) != next {
                here += 1;
                continue;
            }
            let mut offset = here - there;
            let mut stop = here + bytes.common(here, there, end);
            let last = recent.last();
            if last <= here {
                let other = here + 1 + bytes.common(here + 1, here + 1 - last, end);
                if other >= stop {
                    (here, offset, stop) = (here + 1, last, other);
                }
            }
            while here > start.max(offset)
                && bytes.read::<1>(here - 1) == bytes.read::<1>(here - 1 - offset)
            {
                here -= 1;
            }
            self.copy(&bytes, start, here);
            self.push(Sequence {
                literals: (here - start) as u16,
                length: (stop - here) as u16,
                offset: recent.value(offset as u16, here > start),
            });
            start = stop;
            here = stop;
        }
        self.copy(&bytes, start, end);
    }

    /// Adds literals, in whole words.
    #[inline(always)]
    fn copy(&mut self, bytes: &Bytes, start: usize, end: usize) {
        for at in (start..end).step_by(BEHIND) {
            let word = bytes.read::<BEHIND>(at);
            self.literals.write(self.literal_count + at - start, word);
        }
        self.literal_count += end - start;
    }

    #[inline(always)]
    fn push(&mut self, sequence: Sequence) {
        self.sequences.set(self.sequence_count, sequence);
        self.sequence_count += 1;
    }
}

/// The offsets used last: RFC 8878, section 3.1.1.5.
struct Recent([u16; 3]);

impl Recent {
    #[inline(always)]
    fn last(&self) -> usize {
        let [last, ..] = self.0;
        last.into()
    }

    /// How the format writes an offset: RFC 8878, section 3.1.1.5. Behind a sequence without literals the last
    /// offset cannot come again, so there one to three mean others.
    #[inline(always)]
    fn value(&mut self, offset: u16, has_literals: bool) -> u16 {
        let [first, second, third] = self.0;
        let skipped = u16::from(!has_literals);
        if has_literals && offset == first {
            1
        } else if offset == second {
            self.0 = [second, first, third];
            2 - skipped
        } else {
            self.0 = [offset, first, second];
            if offset == third {
                3 - skipped
            } else if !has_literals && offset + 1 == first {
                3
            } else {
                offset + 3
            }
        }
    }
}

/// The highest bits of a product with 2^32 divided by the golden ratio (Knuth, volume 3, section 6.4).
#[inline(always)]
fn hash(bytes: [u8; SHORTEST]) -> usize {
    (u32::from_le_bytes(bytes).wrapping_mul(0x9E37_79B1) >> (32 - HASH_BITS)) as usize
}
