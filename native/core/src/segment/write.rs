//! Segments from some events of another one.

use super::columns::{Cell, Events};
use super::{CHECKSUM, Codec, ENTRY, Error, FORMAT, Given, HEADER, MAGIC, NONE, Section, Segment};
use crate::archive::zstd;
use crate::hash;
use std::collections::HashMap;

/// Sections shorter than this do not become smaller.
const MIN_COMPRESSED: usize = 64;

/// A segment of these events of `source`, whose contents were loaded whole: what the packer would write for
/// them, each section compressed where it was in the source.
///
/// # Errors
/// [`Error::Archive`].
pub fn filtered(source: &Segment, events: &Events, kept: &[u32]) -> Result<Vec<u8>, Error> {
    let mut sections = Vec::new();
    for section in Section::ALL {
        let cells: Vec<_> = kept
            .iter()
            .map(|event| events.cell(section, *event as usize))
            .collect();
        if cells.iter().any(Option::is_some) {
            sections.push((section, encoded(section, &cells)));
        }
    }
    if sections.is_empty() && !kept.is_empty() {
        // Some bytes there must be to vouch for the number of events.
        let cells = vec![None; kept.len()];
        sections.push((Section::Others, encoded(Section::Others, &cells)));
    }
    let stored = sections.into_iter().map(|(section, content)| {
        let codec = source.codec(section).unwrap_or(Codec::Stored);
        Ok(Stored {
            section,
            size: content.len(),
            bytes: compressed(&content, codec, source.dictionary)?.ok_or(content),
        })
    });
    Ok(written(kept.len(), &stored.collect::<Result<Vec<_>, _>>()?))
}

/// The bytes of a section: in [`Ok`] compressed, in [`Err`] as they are.
struct Stored {
    section: Section,
    size: usize,
    bytes: Result<Vec<u8>, Vec<u8>>,
}

impl Stored {
    fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Ok(bytes) | Err(bytes) => bytes,
        }
    }
}

fn encoded(section: Section, cells: &[Option<Cell>]) -> Vec<u8> {
    let mut output = Vec::new();
    match section {
        Section::Versions | Section::Positions | Section::EpochUs => {
            for cell in cells {
                let value = match cell {
                    Some(Cell::Integer(value)) => *value,
                    _ => NONE,
                };
                output.extend(value.to_le_bytes());
            }
        }
        Section::EventIds => {
            for eight in cells.chunks(8) {
                let bits = eight.iter().rev();
                output.push(bits.fold(0, |byte, cell| 2 * byte + u8::from(cell.is_some())));
            }
            pieces(&mut output, cells.iter().map(bytes));
        }
        Section::Types | Section::Streams => names(&mut output, cells),
        Section::Data | Section::Metadata | Section::Others => {
            pieces(&mut output, cells.iter().map(bytes));
        }
    }
    output
}

fn bytes<'c>(cell: &Option<Cell<'c>>) -> &'c [u8] {
    match cell {
        Some(Cell::Binary(bytes) | Cell::Payload(bytes)) => bytes,
        _ => &[],
    }
}

/// Ends, and then the pieces. They come from a section, so together they are shorter than 4 GiB.
fn pieces<'c>(output: &mut Vec<u8>, pieces: impl Iterator<Item = &'c [u8]> + Clone) {
    let mut end = 0_u32;
    for piece in pieces.clone() {
        end += piece.len() as u32;
        output.extend(end.to_le_bytes());
    }
    pieces.for_each(|piece| output.extend(piece));
}

fn names(output: &mut Vec<u8>, cells: &[Option<Cell>]) {
    let mut codes = HashMap::new();
    let mut names = Vec::new();
    for cell in cells {
        let code = match cell {
            None => 0,
            Some(_) => *codes.entry(bytes(cell)).or_insert_with(|| {
                names.push(bytes(cell));
                names.len() as u32
            }),
        };
        output.extend(code.to_le_bytes());
    }
    output.extend((names.len() as u32).to_le_bytes());
    pieces(output, names.iter().copied());
}

/// The bytes compressed, if they are to be and gain by it.
fn compressed(content: &[u8], codec: Codec, dictionary: Given) -> Result<Option<Vec<u8>>, Error> {
    if codec == Codec::Stored || content.len() < MIN_COMPRESSED {
        return Ok(None);
    }
    let dictionary = dictionary.map_err(Error::Archive)?;
    let mut frame = vec![0; zstd::compress_bound(content.len())];
    let level = zstd::DEFAULT_LEVEL;
    let size =
        zstd::compress(content, &mut frame, level, true, dictionary).map_err(Error::Archive)?;
    frame.truncate(size);
    Ok((size < content.len()).then_some(frame))
}

fn written(count: usize, sections: &[Stored]) -> Vec<u8> {
    let mut output = Vec::new();
    output.extend(MAGIC);
    output.extend([FORMAT, 0]);
    output.extend((sections.len() as u16).to_le_bytes());
    output.extend((count as u32).to_le_bytes());
    output.extend([0; 4]);
    let mut offset = HEADER + ENTRY * sections.len() + CHECKSUM;
    for stored in sections {
        let bytes = stored.bytes();
        output.extend([stored.section as u8, u8::from(stored.bytes.is_ok())]);
        output.extend([0; 6]);
        for number in [offset, bytes.len(), stored.size] {
            output.extend((number as u64).to_le_bytes());
        }
        output.extend(hash::xxhash3(bytes).to_le_bytes());
        offset += bytes.len();
    }
    output.extend(hash::xxhash3(&output).to_le_bytes());
    for stored in sections {
        output.extend(stored.bytes());
    }
    output
}
