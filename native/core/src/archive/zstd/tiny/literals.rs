//! The literals section of a block (RFC 8878, section 3.1.1.3.1).
//!
//! ```text
//!   0 raw, 1 repeated   | size 5 | 0 | kind 2 |             literals, or the repeated one
//!                       | size 12 | 0 1 | kind 2 |          the same from 32 on
//!   2 compressed        | size 10 | of 10 | 0 0 | 1 0 |     weights of the code, one stream
//! ```
//!
//! Headers are little-endian, with their lowest bits on the right; `of` is how many literals there are.

use super::{copy, huffman::Code, table::Table};

const RAW: u8 = 0;
const REPEATED: u8 = 1;
const COMPRESSED: u32 = 2;

/// So few literals are not worth a code of their own.
const FEW: usize = 32;

/// Writes the section in its smallest form.
pub(super) fn write(literals: &[u8], output: &mut [u8]) -> Option<usize> {
    if literals.len() >= FEW {
        let mut counts = Table::<u16, 256>::EMPTY;
        for byte in literals {
            let byte = usize::from(*byte);
            counts.set(byte, counts.get(byte) + 1);
        }
        let first = *literals.first()?;
        if usize::from(counts.get(first.into())) == literals.len() {
            return repeated(first, literals.len(), output);
        }
        match compressed(literals, &counts, output) {
            Some(size) if size < literals.len() => return Some(size),
            _ => {}
        }
    }
    let size = header(RAW, literals.len(), output)?;
    Some(size + copy(literals, output.get_mut(size..)?)?)
}

/// Writes the section for `count` times the same byte.
pub(super) fn repeated(byte: u8, count: usize, output: &mut [u8]) -> Option<usize> {
    let size = header(REPEATED, count, output)?;
    Some(size + copy(&[byte], output.get_mut(size..)?)?)
}

fn header(kind: u8, count: usize, output: &mut [u8]) -> Option<usize> {
    if count < 32 {
        copy(&[(count as u8) << 3 | kind], output)
    } else {
        let header = (count as u16) << 4 | 1 << 2 | u16::from(kind);
        copy(&header.to_le_bytes(), output)
    }
}

fn compressed(literals: &[u8], counts: &Table<u16, 256>, output: &mut [u8]) -> Option<usize> {
    let last = literals.iter().copied().max()?;
    let code = Code::new(counts, last, literals.len());
    let (header, output) = output.split_first_chunk_mut()?;
    let weights = code.describe(output)?;
    let size = weights + code.write(literals, output.get_mut(weights..)?)?;
    if size > super::LARGEST {
        return None;
    }
    let value = (size as u32) << 14 | (literals.len() as u32) << 4 | COMPRESSED;
    let [low, mid, high, _] = value.to_le_bytes();
    *header = [low, mid, high];
    Some(3 + size)
}
