//! A walk over the structure of Zstandard frames (RFC 8878, section 3), before anything is decoded.
//!
//! It finds truncation, trailing garbage, sizes that lie and windows that are too large, with the same rules
//! and the same order of checks as `esdb_zstd_frame_erl`, so both modes give the same reasons, and it tells
//! how much memory the content can need at most, and where each frame and each block ends.

use super::Error;

/// The largest window that is accepted, the same as the limit of the zstd program.
pub const MAX_WINDOW: u64 = 1 << 27;

const MAGIC: u32 = 0xFD2F_B528;
const SKIPPABLE: u32 = 0x184D_2A50;
const MAX_BLOCK: u64 = 1 << 17;
/// Of a compressed block: the header of no literals, and the number of no sequences.
const MIN_COMPRESSED: u64 = 2;

/// What the frames of an input need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The content is at least that large: what the frames state, or else their raw and repeated blocks.
    pub least: u64,
    /// And at most that large; the same as `least` where each frame states its size.
    pub most: u64,
    /// There is one frame, and all of its content fits into one block.
    pub is_short: bool,
    /// The window of the only frame; none where there are several.
    pub window: Option<u64>,
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
    let mut headers = 0;
    while !reader.0.is_empty() {
        if let Some(header) = Header::read(&mut reader)? {
            header.check(dictionary)?;
            frame(&mut reader, &header, max_size, &mut plan)?;
            headers += 1;
            plan.is_short = headers == 1 && plan.most <= header.block_limit();
            plan.window = (headers == 1).then_some(header.reach());
        }
    }
    Ok(plan)
}

struct Header {
    /// None where the frame is in one segment: then it is the content.
    window: Option<u64>,
    content_size: Option<u64>,
    dictionary: u32,
    has_checksum: bool,
}

impl Header {
    /// The header of a frame, or nothing where a skippable frame was skipped.
    fn read(reader: &mut Reader) -> Result<Option<Self>, Error> {
        let magic = reader.u32()?;
        if magic & !15 == SKIPPABLE {
            let size = reader.u32()?;
            reader.skip(u64::from(size))?;
            return Ok(None);
        }
        let descriptor = match magic {
            MAGIC => reader.u8()?,
            _ => return Err(Error::Corrupt),
        };
        if descriptor & 0b1000 != 0 {
            return Err(Error::Corrupt);
        }
        let is_single_segment = descriptor & 0b10_0000 != 0;
        Ok(Some(Self {
            window: match is_single_segment {
                true => None,
                false => Some(window(reader.u8()?)),
            },
            dictionary: match descriptor & 3 {
                0 => 0,
                1 => u32::from(reader.u8()?),
                2 => u32::from(reader.u16()?),
                _ => reader.u32()?,
            },
            content_size: match descriptor >> 6 {
                0 if is_single_segment => Some(u64::from(reader.u8()?)),
                0 => None,
                1 => Some(u64::from(reader.u16()?) + 256),
                2 => Some(u64::from(reader.u32()?)),
                _ => Some(reader.u64()?),
            },
            has_checksum: descriptor & 0b100 != 0,
        }))
    }

    fn check(&self, dictionary: u32) -> Result<(), Error> {
        match self.window {
            Some(size) if size > MAX_WINDOW => Err(Error::WindowTooLarge(size)),
            _ if self.dictionary != 0 && self.dictionary != dictionary => {
                Err(Error::DictionaryMismatch(self.dictionary))
            }
            _ => Ok(()),
        }
    }

    /// How far back matches may reach.
    fn reach(&self) -> u64 {
        self.window.or(self.content_size).unwrap_or(0)
    }

    /// What a block holds at most.
    fn block_limit(&self) -> u64 {
        self.reach().min(MAX_BLOCK)
    }
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
    let limit = header.block_limit();
    let (mut least, mut most) = (0_u64, 0_u64);
    loop {
        let block = Block::read(reader)?;
        if block.size > limit || block.is_reserved() {
            return Err(Error::Corrupt);
        }
        if block.is_compressed() && block.size < MIN_COMPRESSED {
            return Err(Error::Corrupt);
        }
        reader.skip(block.length())?;
        least += if block.is_compressed() { 0 } else { block.size };
        most += if block.is_compressed() {
            limit
        } else {
            block.size
        };
        match header.content_size {
            Some(size) if least > size => return Err(Error::Corrupt),
            None if least > left => return Err(too_large),
            _ => {}
        }
        if block.is_last {
            return Ok((least, most));
        }
    }
}

/// The header of a block.
struct Block {
    is_last: bool,
    kind: u32,
    size: u64,
}

impl Block {
    fn read(reader: &mut Reader) -> Result<Self, Error> {
        let word = reader.u24()?;
        Ok(Self {
            is_last: word & 1 == 1,
            kind: (word >> 1) & 3,
            size: u64::from(word >> 3),
        })
    }

    fn is_compressed(&self) -> bool {
        self.kind == 2
    }

    fn is_reserved(&self) -> bool {
        self.kind == 3
    }

    /// How many bytes of the input it takes: one where it repeats that.
    fn length(&self) -> u64 {
        if self.kind == 1 { 1 } else { self.size }
    }
}

/// A frame of an input that was walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// All in front of the blocks.
    pub header: &'a [u8],
    /// What the frame states.
    pub content_size: Option<u64>,
    /// The blocks, each with its header.
    pub blocks: &'a [u8],
    /// Empty where there is none.
    pub checksum: &'a [u8],
}

/// The frames of an input that was walked, without the skippable ones.
pub fn frames(input: &[u8]) -> impl Iterator<Item = Frame<'_>> {
    let mut reader = Reader(input);
    std::iter::from_fn(move || {
        loop {
            let start = reader.0;
            if let Some(header) = Header::read(&mut reader).ok()? {
                return reader.frame(start, &header);
            }
        }
    })
}

/// The blocks of a [`Frame`], one by one.
pub fn each_block(blocks: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut reader = Reader(blocks);
    std::iter::from_fn(move || {
        let start = reader.0;
        reader.block()?;
        reader.since(start)
    })
}

/// Takes numbers from the front of a slice.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// What was taken since all of `start` was left.
    fn since(&self, start: &'a [u8]) -> Option<&'a [u8]> {
        start.get(..start.len().checked_sub(self.0.len())?)
    }

    /// The rest of a frame whose header was taken.
    fn frame(&mut self, start: &'a [u8], header: &Header) -> Option<Frame<'a>> {
        let head = self.since(start)?;
        let start = self.0;
        while !self.block()?.is_last {}
        let blocks = self.since(start)?;
        let start = self.0;
        if header.has_checksum {
            self.skip(4).ok()?;
        }
        Some(Frame {
            header: head,
            content_size: header.content_size,
            blocks,
            checksum: self.since(start)?,
        })
    }

    fn block(&mut self) -> Option<Block> {
        let block = Block::read(self).ok()?;
        self.skip(block.length()).ok()?;
        Some(block)
    }

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
                most: 8 + MAX_BLOCK,
                is_short: false,
                window: Some(MAX_BLOCK)
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

    #[test]
    fn a_compressed_block_has_two_bytes() {
        let is_taken = |block: &[u8]| plan(&open_frame(block), 100, 0).is_ok();
        assert!(!is_taken(&[5, 0, 0]));
        assert!(!is_taken(&[5 + (1 << 3), 0, 0, 0]));
        assert!(is_taken(&[5 + (2 << 3), 0, 0, 0, 0]));
    }

    #[test]
    fn frames_and_blocks_add_up_to_the_input() {
        let raw = [0x18, 0, 0, 1, 2, 3];
        let last = [0x2B, 0, 0, 9];
        let skippable = [0x53, 0x2A, 0x4D, 0x18, 2, 0, 0, 0, 7, 7];
        let checked = [
            &MAGIC.to_le_bytes()[..],
            &[0b100, 7 << 3],
            &last,
            &[1, 2, 3, 4],
        ]
        .concat();
        let input = [
            &open_frame(&[&raw[..], &raw[..], &last[..]].concat())[..],
            &skippable[..],
            &checked[..],
        ]
        .concat();
        assert!(plan(&input, 100, 0).is_ok());
        let blocks = [&raw[..], &raw[..], &last[..]];
        let found: Vec<_> = frames(&input)
            .map(|frame| {
                let blocks: Vec<_> = each_block(frame.blocks).collect();
                (frame.header.len(), blocks, frame.checksum)
            })
            .collect();
        let expected = [
            (6, blocks.to_vec(), &[][..]),
            (6, vec![&last[..]], &[1, 2, 3, 4][..]),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn short_is_one_frame_of_one_block() {
        let is_short = |input: &[u8]| plan(input, 1 << 30, 0).map(|plan| plan.is_short);
        let (last, compressed) = ([0x2B, 0, 0, 9], [0x14, 0, 0, 0, 0]);
        let one = open_frame(&last);
        assert_eq!(is_short(&one), Ok(true));
        assert_eq!(is_short(&[&one[..], &one[..]].concat()), Ok(false));
        let more = [&compressed[..], &last[..]].concat();
        assert_eq!(is_short(&open_frame(&more)), Ok(false));
    }
}
