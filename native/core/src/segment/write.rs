//! Segments from events of others.
//!
//! Events that follow each other are copied together, and each byte once: the sections are written one behind the
//! other to where they stay, and the table in front of them at last.

use super::columns::{Events, Pieces};
use super::{
    CHECKSUM, ENTRY, Error, FORMAT, Given, HEADER, Lazy, MAGIC, MAX_COUNT, MAX_SIZE, NONE, Section,
    Sections,
};
use crate::archive::{self, zstd};
use crate::hash;
use std::collections::HashMap;
use std::ops::Range;

/// Sections shorter than this do not become smaller.
const MIN_COMPRESSED: usize = 64;

/// Events of one segment, whose contents were loaded whole, and which of them are kept.
pub struct Part<'c> {
    events: Events<'c>,
    kept: Kept,
}

impl<'c> Part<'c> {
    /// Those with these numbers.
    #[must_use]
    pub fn some(events: Events<'c>, kept: &[u32]) -> Self {
        let kept = Kept::new(kept);
        Self { events, kept }
    }

    /// All of them.
    #[must_use]
    pub fn all(events: Events<'c>) -> Self {
        let count = events.count();
        let runs = Vec::from_iter((count > 0).then_some(0..count));
        Self {
            events,
            kept: Kept { runs, count },
        }
    }
}

/// The segment of these events, one part behind the other: what the packer would write for them, with some of the
/// sections compressed if that makes them smaller.
///
/// # Errors
/// [`Error::TooLarge`], [`Error::Archive`].
pub fn joined(parts: &[Part], compress: Sections, dictionary: Given) -> Result<Vec<u8>, Error> {
    let parts = Parts::new(parts);
    let mut sections: Vec<_> = Section::ALL
        .into_iter()
        .filter(|section| parts.have(*section))
        .collect();
    if sections.is_empty() && parts.count > 0 {
        // Some bytes there must be to vouch for the number of events.
        sections.push(Section::Others);
    }
    let least: usize = sections.iter().map(|section| parts.size(*section)).sum();
    if parts.count > MAX_COUNT || least as u64 > MAX_SIZE {
        return Err(Error::TooLarge);
    }
    let start = HEADER + ENTRY * sections.len() + CHECKSUM;
    let mut output = Vec::new();
    let reserved = output.try_reserve(start + least);
    reserved.map_err(|_| Error::Archive(archive::Error::NoMemory))?;
    output.resize(start, 0);
    let mut table = Vec::new();
    let mut sizes = 0;
    for section in sections {
        let offset = output.len();
        parts.write(section, &mut output)?;
        let content = output.get(offset..).unwrap_or_default();
        let size = content.len();
        sizes += size as u64;
        let frame = match compress.contains(section) {
            true => compressed(content, dictionary)?,
            false => None,
        };
        if let Some(frame) = &frame {
            output.truncate(offset);
            output.extend(frame);
        }
        let stored = output.get(offset..).unwrap_or_default();
        table.extend([section as u8, u8::from(frame.is_some())]);
        table.extend([0; 6]);
        for number in [offset, stored.len(), size] {
            table.extend((number as u64).to_le_bytes());
        }
        table.extend(hash::xxhash3(stored).to_le_bytes());
    }
    if sizes > MAX_SIZE {
        return Err(Error::TooLarge);
    }
    for (place, byte) in output.iter_mut().zip(head(parts.count, &table)) {
        *place = byte;
    }
    Ok(output)
}

/// All before the sections.
fn head(count: usize, table: &[u8]) -> Vec<u8> {
    let mut head = Vec::new();
    head.extend(MAGIC);
    head.extend([FORMAT, 0]);
    head.extend(((table.len() / ENTRY) as u16).to_le_bytes());
    head.extend((count as u32).to_le_bytes());
    head.extend([0; 4]);
    head.extend(table);
    head.extend(hash::xxhash3(&head).to_le_bytes());
    head
}

/// The bytes compressed, if they gain by it.
fn compressed(content: &[u8], dictionary: Given) -> Result<Option<Vec<u8>>, Error> {
    if content.len() < MIN_COMPRESSED {
        return Ok(None);
    }
    let dictionary = dictionary.map(Lazy::to_compress).transpose();
    let dictionary = dictionary.map_err(Error::Archive)?;
    let mut frame = vec![0; zstd::compress_bound(content.len())];
    let level = zstd::DEFAULT_LEVEL;
    let size =
        zstd::compress(content, &mut frame, level, true, dictionary).map_err(Error::Archive)?;
    frame.truncate(size);
    Ok((size < content.len()).then_some(frame))
}

/// The events that are kept, as ranges.
struct Kept {
    runs: Vec<Range<usize>>,
    count: usize,
}

impl Kept {
    fn new(kept: &[u32]) -> Self {
        let mut runs: Vec<Range<usize>> = Vec::new();
        for event in kept.iter().map(|event| *event as usize) {
            match runs.last_mut() {
                Some(run) if run.end == event => run.end += 1,
                _ => runs.push(event..event + 1),
            }
        }
        Self {
            runs,
            count: kept.len(),
        }
    }

    fn events(&self) -> impl Iterator<Item = usize> {
        self.runs.iter().cloned().flatten()
    }

    /// The pieces of each run together.
    fn pieces<'c>(&self, pieces: Pieces<'c>) -> impl Iterator<Item = &'c [u8]> {
        let runs = self.runs.iter().cloned();
        runs.filter_map(move |run| pieces.together(run))
    }
}

/// What becomes one segment.
struct Parts<'a, 'c> {
    parts: &'a [Part<'c>],
    count: usize,
}

impl<'a, 'c> Parts<'a, 'c> {
    fn new(parts: &'a [Part<'c>]) -> Self {
        let count = parts.iter().map(|part| part.kept.count).sum();
        Self { parts, count }
    }

    /// Whether one of the events has something in a section.
    fn have(&self, section: Section) -> bool {
        let has = |part: &Part| {
            let mut events = part.kept.events();
            events.any(|event| part.events.cell(section, event).is_some())
        };
        self.parts.iter().any(has)
    }

    /// How many bytes a section will take at least: without the names, which may be the same in all parts.
    fn size(&self, section: Section) -> usize {
        let ends = 4 * self.count;
        match section {
            Section::Versions | Section::Positions | Section::EpochUs => 8 * self.count,
            Section::EventIds => self.count.div_ceil(8) + ends + self.bytes(section),
            Section::Types | Section::Streams => ends + 4,
            Section::Data | Section::Metadata | Section::Others => ends + self.bytes(section),
        }
    }

    fn bytes(&self, section: Section) -> usize {
        let parts = self.parts.iter();
        let pieces = parts.filter_map(|part| Some((part, part.pieces(section)?)));
        let pieces = pieces.flat_map(|(part, pieces)| part.kept.pieces(pieces));
        pieces.map(<[u8]>::len).sum()
    }

    fn write(&self, section: Section, output: &mut Vec<u8>) -> Result<(), Error> {
        match section {
            Section::Versions | Section::Positions | Section::EpochUs => {
                self.write_integers(section, output);
            }
            Section::EventIds => {
                self.write_presence(output);
                self.write_pieces(section, output);
            }
            Section::Types | Section::Streams => self.write_names(section, output)?,
            Section::Data | Section::Metadata | Section::Others => {
                self.write_pieces(section, output);
            }
        }
        Ok(())
    }

    fn write_integers(&self, section: Section, output: &mut Vec<u8>) {
        for Part { events, kept } in self.parts {
            match events.integers(section) {
                Some(integers) => {
                    for run in &kept.runs {
                        output.extend(integers.bytes(run.clone()));
                    }
                }
                None => output.extend(NONE.to_le_bytes().repeat(kept.count)),
            }
        }
    }

    /// A bit for each event, whether it has an id.
    fn write_presence(&self, output: &mut Vec<u8>) {
        let (mut byte, mut bit) = (0_u8, 0);
        for Part { events, kept } in self.parts {
            let ids = events.ids();
            for event in kept.events() {
                byte |= u8::from(ids.is_some_and(|ids| ids.has(event))) << bit;
                bit = (bit + 1) % 8;
                if bit == 0 {
                    output.push(byte);
                    byte = 0;
                }
            }
        }
        if bit > 0 {
            output.push(byte);
        }
    }

    /// Ends, and then the pieces, which together are as short as a section has to be.
    fn write_pieces(&self, section: Section, output: &mut Vec<u8>) {
        let mut end = 0;
        for part in self.parts {
            let pieces = part.pieces(section);
            for event in part.kept.events() {
                let piece = pieces.and_then(|pieces| pieces.get(event));
                end += piece.map_or(0, |piece| piece.len() as u32);
                output.extend(end.to_le_bytes());
            }
        }
        for part in self.parts {
            if let Some(pieces) = part.pieces(section) {
                for together in part.kept.pieces(pieces) {
                    output.extend(together);
                }
            }
        }
    }

    /// Names again in the order of their first use; those of several parts, and those that a forged segment
    /// repeats, become one.
    fn write_names(&self, section: Section, output: &mut Vec<u8>) -> Result<(), Error> {
        let mut used = Vec::new();
        let mut codes = HashMap::new();
        for Part { events, kept } in self.parts {
            let Some(names) = events.names(section) else {
                output.resize(output.len() + 4 * kept.count, 0);
                continue;
            };
            // By their numbers in the part, 0 for those that did not come up yet.
            let mut known = vec![0; names.count()];
            for event in kept.events() {
                let place = names.code(event).and_then(|code| known.get_mut(code));
                let code = match (place, names.get(event)) {
                    (Some(code), Some(name)) => {
                        if *code == 0 {
                            *code = *codes.entry(name).or_insert_with(|| {
                                used.push(name);
                                used.len() as u32
                            });
                        }
                        *code
                    }
                    _ => 0,
                };
                output.extend(code.to_le_bytes());
            }
        }
        let size: usize = used.iter().map(|name| name.len()).sum();
        if size as u64 > MAX_SIZE {
            return Err(Error::TooLarge);
        }
        output.extend((used.len() as u32).to_le_bytes());
        let mut end = 0;
        for name in &used {
            end += name.len() as u32;
            output.extend(end.to_le_bytes());
        }
        output.extend(used.concat());
        Ok(())
    }
}

impl<'c> Part<'c> {
    /// The ids or terms of a section, if one of the events has some.
    fn pieces(&self, section: Section) -> Option<Pieces<'c>> {
        match section {
            Section::EventIds => self.events.ids().map(|ids| ids.ids),
            _ => self.events.payloads(section),
        }
    }
}
