//! LZ4: the size of the content in 32 bits, little-endian, then one LZ4 block.
//!
//! That is what `lz4.block` of Python writes (and many others). Format of the block:
//! <https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md>.

use super::Error;
use lz4_flex::block;

/// The largest input of the format.
pub const MAX_INPUT: usize = 0x7E00_0000;

const HEADER: usize = 4;

/// The largest output that an input of this size can have.
#[must_use]
pub fn compress_bound(size: usize) -> usize {
    HEADER + block::get_maximum_output_size(size)
}

/// Compresses into `output`, which has at least [`compress_bound`] bytes, and returns how many it wrote.
///
/// # Errors
/// [`Error::TooLarge`] above [`MAX_INPUT`].
pub fn compress(input: &[u8], output: &mut [u8]) -> Result<usize, Error> {
    let size = u32::try_from(input.len()).map_err(|_| Error::TooLarge(MAX_INPUT as u64))?;
    if input.len() > MAX_INPUT {
        return Err(Error::TooLarge(MAX_INPUT as u64));
    }
    let (header, rest) = output
        .split_first_chunk_mut::<HEADER>()
        .ok_or(Error::NoMemory)?;
    *header = size.to_le_bytes();
    let written = block::compress_into(input, rest).map_err(|_| Error::NoMemory)?;
    Ok(HEADER + written)
}

/// The size that the header states, where it is within `max_size` and the block can hold that much.
///
/// No byte of a block stands for more than 255 of the content, so beyond that the block is cut, or the size
/// a lie.
///
/// # Errors
/// [`Error::Truncated`], [`Error::TooLarge`].
pub fn content_size(input: &[u8], max_size: u64) -> Result<usize, Error> {
    let (header, block) = input
        .split_first_chunk::<HEADER>()
        .ok_or(Error::Truncated)?;
    let size = u32::from_le_bytes(*header);
    if u64::from(size) > max_size {
        Err(Error::TooLarge(max_size))
    } else if block.is_empty() || u64::from(size) > block.len() as u64 * 255 {
        Err(Error::Truncated)
    } else {
        usize::try_from(size).map_err(|_| Error::TooLarge(max_size))
    }
}

/// Decompresses into `output`, which has exactly the [`content_size`] of the input.
///
/// # Errors
/// [`Error::Truncated`], [`Error::Corrupt`].
pub fn decompress(input: &[u8], output: &mut [u8]) -> Result<(), Error> {
    let block = input.get(HEADER..).ok_or(Error::Truncated)?;
    match block::decompress_into(block, output) {
        Ok(written) if written == output.len() => Ok(()),
        _ => Err(reason(block, output.len())),
    }
}

/// Why a block does not decompress to `size` bytes: the walk of the sequences that the decoder also takes,
/// without the bytes.
fn reason(block: &[u8], size: usize) -> Error {
    match walk(block, size) {
        Some(error) => error,
        None => Error::Corrupt,
    }
}

fn walk(mut rest: &[u8], size: usize) -> Option<Error> {
    let mut produced = 0_usize;
    loop {
        let Some((&token, after_token)) = rest.split_first() else {
            return Some(Error::Truncated);
        };
        let Some((literals, after_length)) = length(usize::from(token >> 4), after_token) else {
            return Some(Error::Truncated);
        };
        produced += literals;
        if produced > size {
            return Some(Error::Corrupt);
        }
        let Some(after_literals) = after_length.get(literals..) else {
            return Some(Error::Truncated);
        };
        if after_literals.is_empty() {
            return (produced < size).then_some(Error::Truncated);
        }
        let Some((offset, after_offset)) = after_literals.split_first_chunk::<2>() else {
            return Some(Error::Truncated);
        };
        let offset = usize::from(u16::from_le_bytes(*offset));
        if offset == 0 || offset > produced {
            return Some(Error::Corrupt);
        }
        let Some((matched, after_match)) = length(usize::from(token & 15), after_offset) else {
            return Some(Error::Truncated);
        };
        produced += matched + 4;
        if produced > size {
            return Some(Error::Corrupt);
        }
        rest = after_match;
    }
}

/// A length of 15 goes on in bytes that are added up, to the first that is not 255.
fn length(nibble: usize, mut rest: &[u8]) -> Option<(usize, &[u8])> {
    let mut length = nibble;
    if nibble == 15 {
        loop {
            let (&byte, tail) = rest.split_first()?;
            length += usize::from(byte);
            rest = tail;
            if byte != 255 {
                break;
            }
        }
    }
    Some((length, rest))
}
