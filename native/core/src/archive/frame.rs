//! A walk over the structure of Zstandard frames (RFC 8878, section 3), before anything is decoded.
//!
//! It finds truncation, trailing garbage, sizes that lie and windows that are too large, with the same rules
//! and the same order of checks as `esdb_zstd_frame_erl`, so both modes give the same reasons, and it tells
//! how much memory the content can need at most.

use super::Error;

/// The largest window that is accepted, the same as the limit of the zstd program.
pub const MAX_WINDOW: u64 = 1 << 27;

const MAGIC: u32 = 0xFD2F_B528;
const SKIPPABLE: u32 = 0x184D_2A50;
const MAX_BLOCK: u64 = 1 << 17;

/// What the frames of an input need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The content is at least that large: what the frames state, or else their raw and repeated blocks.
    pub least: u64,
    /// And at most that large; the same as `least` where each frame states its size.
    pub most: u64,
}

struct Header {
    window: u64,
    content_size: Option<u64>,
    has_checksum: bool,
}

/// What the content of all frames needs at most.
///
/// `dictionary` is the id of the dictionary at hand, 0 for none and for one without id.
///
/// # Errors
/// The reason why the input cannot be read within `max_size`.
pub fn plan(input: &[u8], max_size: u64, dictionary: u32) -> Result<Plan, Error> {
    if input.is_empty() {
        return Err(Error::Truncated);
    }
    let mut reader = Reader(input);
    let mut plan = Plan::default();
    while !reader.0.is_empty() {
        let magic = reader.u32()?;
        if magic == MAGIC {
            let header = header(&mut reader, dictionary)?;
            frame(&mut reader, &header, max_size, &mut plan)?;
        } else if magic & !15 == SKIPPABLE {
            let size = reader.u32()?;
            reader.skip(u64::from(size))?;
        } else {
            return Err(Error::Corrupt);
        }
    }
    Ok(plan)
}

fn header(reader: &mut Reader, dictionary: u32) -> Result<Header, Error> {
    let descriptor = reader.u8()?;
    if descriptor & 0b1000 != 0 {
        return Err(Error::Corrupt);
    }
    let single_segment = descriptor & 0b10_0000 != 0;
    let window = if single_segment {
        None
    } else {
        Some(window(reader.u8()?))
    };
    let wanted = match descriptor & 3 {
        0 => 0,
        1 => u32::from(reader.u8()?),
        2 => u32::from(reader.u16()?),
        _ => reader.u32()?,
    };
    let content_size = match descriptor >> 6 {
        0 if single_segment => Some(u64::from(reader.u8()?)),
        0 => None,
        1 => Some(u64::from(reader.u16()?) + 256),
        2 => Some(u64::from(reader.u32()?)),
        _ => Some(reader.u64()?),
    };
    if let Some(size) = window.filter(|&size| size > MAX_WINDOW) {
        return Err(Error::WindowTooLarge(size));
    }
    if wanted != 0 && wanted != dictionary {
        return Err(Error::DictionaryMismatch(wanted));
    }
    let window = window.or(content_size).unwrap_or(0);
    Ok(Header {
        window,
        content_size,
        has_checksum: descriptor & 0b100 != 0,
    })
}

fn window(byte: u8) -> u64 {
    let base = 1_u64 << (10 + (byte >> 3));
    base + (base >> 3) * u64::from(byte & 7)
}

fn frame(
    reader: &mut Reader,
    header: &Header,
    max_size: u64,
    plan: &mut Plan,
) -> Result<(), Error> {
    let left = max_size - plan.least;
    match header.content_size {
        Some(size) if size > left => return Err(Error::TooLarge(max_size)),
        _ => {}
    }
    let (least, most) = blocks(reader, header, left, Error::TooLarge(max_size))?;
    if header.has_checksum {
        reader.skip(4)?;
    }
    match header.content_size {
        Some(size) if size > most => return Err(Error::Corrupt),
        Some(size) => {
            plan.least += size;
            plan.most += size;
        }
        None => {
            plan.least += least;
            plan.most += most;
        }
    }
    Ok(())
}

/// What the blocks of a frame hold at least and at most.
fn blocks(
    reader: &mut Reader,
    header: &Header,
    left: u64,
    too_large: Error,
) -> Result<(u64, u64), Error> {
    let block_limit = header.window.min(MAX_BLOCK);
    let (mut least, mut most) = (0_u64, 0_u64);
    loop {
        let word = reader.u24()?;
        let size = u64::from(word >> 3);
        if size > block_limit {
            return Err(Error::Corrupt);
        }
        match (word >> 1) & 3 {
            0 => reader.skip(size)?,
            1 => reader.skip(1)?,
            2 => reader.skip(size)?,
            _ => return Err(Error::Corrupt),
        }
        let is_compressed = (word >> 1) & 3 == 2;
        least += if is_compressed { 0 } else { size };
        most += if is_compressed { block_limit } else { size };
        match header.content_size {
            Some(size) if least > size => return Err(Error::Corrupt),
            None if least > left => return Err(too_large),
            _ => {}
        }
        if word & 1 == 1 {
            return Ok((least, most));
        }
    }
}

/// Takes numbers from the front of a slice.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(Error::Truncated)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8, Error> {
        self.bytes().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Result<u16, Error> {
        self.bytes().map(u16::from_le_bytes)
    }

    fn u24(&mut self) -> Result<u32, Error> {
        self.bytes()
            .map(|[a, b, c]| u32::from_le_bytes([a, b, c, 0]))
    }

    fn u32(&mut self) -> Result<u32, Error> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Error> {
        self.bytes().map(u64::from_le_bytes)
    }

    fn skip(&mut self, count: u64) -> Result<(), Error> {
        let count = usize::try_from(count).map_err(|_| Error::Truncated)?;
        self.0 = self.0.get(count..).ok_or(Error::Truncated)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame with a window of 128 KiB and no content size.
    fn open_frame(blocks: &[u8]) -> Vec<u8> {
        [&MAGIC.to_le_bytes()[..], &[0, 7 << 3], blocks].concat()
    }

    #[test]
    fn bounds_of_blocks() {
        // 3 raw bytes, 5 repeated ones, and a compressed block, the last.
        let blocks = [0x18, 0, 0, 1, 2, 3, 0x2A, 0, 0, 9, 0x15, 0, 0, 7, 7];
        let found = plan(&open_frame(&blocks), 1 << 30, 0);
        assert_eq!(
            found,
            Ok(Plan {
                least: 8,
                most: 8 + MAX_BLOCK
            })
        );
        assert_eq!(plan(&open_frame(&blocks), 7, 0), Err(Error::TooLarge(7)));
    }

    #[test]
    fn every_truncation_is_told() {
        let frame = open_frame(&[0x18, 0, 0, 1, 2, 3, 0x2B, 0, 0, 9]);
        assert!(plan(&frame, 100, 0).is_ok());
        for end in 0..frame.len() {
            let cut = frame.get(..end).unwrap_or_default();
            assert_eq!(plan(cut, 100, 0), Err(Error::Truncated), "{end}");
        }
    }

    #[test]
    fn windows_and_dictionaries() {
        let window = |byte| [&MAGIC.to_le_bytes()[..], &[0, byte, 1, 0, 0]].concat();
        assert!(plan(&window(17 << 3), 1, 0).is_ok());
        assert_eq!(
            plan(&window(21 << 3), 1, 0),
            Err(Error::WindowTooLarge(1 << 31))
        );
        let named = [&MAGIC.to_le_bytes()[..], &[0b10_0001, 77, 0, 1, 0, 0]].concat();
        assert_eq!(plan(&named, 1, 0), Err(Error::DictionaryMismatch(77)));
        assert!(plan(&named, 1, 77).is_ok());
    }
}
