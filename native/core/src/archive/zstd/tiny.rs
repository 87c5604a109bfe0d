//! Zstandard frames (RFC 8878) for inputs below a kilobyte, in less than half the time that libzstd takes.
//!
//! Of 350 bytes libzstd spends most of the time on tables: the predefined ones of finite state entropy, which it
//! builds again for each frame, and those of an optimal Huffman code. Here the predefined ones are built once, and
//! the Huffman code is one that rounds (see `huffman`). What is read, whole or damaged, is libzstd's business.
//!
//! ```text
//!   frame     magic number  4   FD2FB528, little-endian
//!             descriptor    1   | size in 2 bytes 1 | single segment 1 | 0 | checksum 1 | 0 0 |
//!             content size  1   below 256 bytes; else 2, less 256
//!             block header  3   | size 21 | kind 2: 0 raw, 2 compressed | last 1 |
//!             block             as it is, or see `literals` and `sequences`
//!             checksum      4   the low half of XXH64, little-endian; where asked for
//! ```

mod bits;
mod fse;
mod huffman;
mod literals;
mod matches;
mod sequences;
mod table;

use crate::hash;

/// The largest input. All sizes and offsets fit into ten bits, as the shortest form of compressed literals wants.
pub const LARGEST: usize = SPACE - 1;

/// How many numbers ten bits have.
const SPACE: usize = 1 << 10;

const MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();
const SINGLE_SEGMENT: u8 = 1 << 5;
const SIZE_IN_TWO_BYTES: u8 = 1 << 6;
const CHECKSUM: u8 = 1 << 2;

/// The kinds of a block.
const RAW: u32 = 0;
const COMPRESSED: u32 = 2;

/// Compresses into one frame with its content size, and returns how many bytes of `output` it wrote: at most 14
/// more than the input has. `None` where the input is larger than [`LARGEST`], or `output` smaller than
/// [`compress_bound`](super::compress_bound).
#[must_use]
pub fn compress(input: &[u8], output: &mut [u8], checksum: bool) -> Option<usize> {
    if input.len() > LARGEST || output.len() < super::compress_bound(input.len()) {
        return None;
    }
    let head = header(input.len(), checksum, output)?;
    let (block_header, block) = output.get_mut(head..)?.split_first_chunk_mut()?;
    let (kind, size) = match compressed(input, block) {
        Some(size) if size < input.len() => (COMPRESSED, size),
        _ => (RAW, copy(input, block)?),
    };
    let [low, mid, high, _] = ((size as u32) << 3 | kind << 1 | 1).to_le_bytes();
    *block_header = [low, mid, high];
    if !checksum {
        return Some(head + 3 + size);
    }
    let sum = hash::xxhash64(input, 0) as u32;
    let end = copy(&sum.to_le_bytes(), block.get_mut(size..)?)?;
    Some(head + 3 + size + end)
}

fn header(size: usize, checksum: bool, output: &mut [u8]) -> Option<usize> {
    let flags = SINGLE_SEGMENT | if checksum { CHECKSUM } else { 0 };
    let [m0, m1, m2, m3] = MAGIC;
    match u8::try_from(size) {
        Ok(size) => copy(&[m0, m1, m2, m3, flags, size], output),
        Err(_) => {
            let [low, high] = (size as u16 - 256).to_le_bytes();
            let flags = flags | SIZE_IN_TWO_BYTES;
            copy(&[m0, m1, m2, m3, flags, low, high], output)
        }
    }
}

/// A compressed block, where there is room for it. A block of one repeated byte would be smaller for a constant
/// input than literals of one, but old versions of the zstd program do not read a frame that begins with it.
fn compressed(input: &[u8], output: &mut [u8]) -> Option<usize> {
    let first = input.first()?;
    if input.iter().all(|byte| byte == first) {
        let size = literals::repeated(*first, input.len(), output)?;
        return Some(size + sequences::write(&[], output.get_mut(size..)?)?);
    }
    let mut block = matches::Block::EMPTY;
    block.find(input);
    let literals = literals::write(block.literals(), output)?;
    let sequences = sequences::write(block.sequences(), output.get_mut(literals..)?)?;
    // Where a byte of a repetition takes more than a literal, all are better literals.
    let repeated = input.len() - block.literals().len();
    if sequences * block.literals().len() > literals * repeated {
        return unrepeated(input, literals + sequences, output);
    }
    Some(literals + sequences)
}

/// Literals alone, where they take less than what `output` has.
#[cold]
fn unrepeated(input: &[u8], size: usize, output: &mut [u8]) -> Option<usize> {
    let mut block = [0; 2 * SPACE];
    let literals = literals::write(input, &mut block)?;
    let end = literals + sequences::write(&[], block.get_mut(literals..)?)?;
    if end < size {
        copy(block.get(..end)?, output)
    } else {
        Some(size)
    }
}

/// Writes the bytes to the front of `output`.
fn copy(bytes: &[u8], output: &mut [u8]) -> Option<usize> {
    output.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(bytes.len())
}
