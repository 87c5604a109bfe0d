//! Segments from some events of another one.
//!
//! Events that follow each other are copied together, and each byte once: the sections are written one behind the
//! other to where they stay, and the table in front of them at last.

use super::columns::{Events, Names, Pieces};
use super::{CHECKSUM, Codec, ENTRY, Error, FORMAT, Given, HEADER, MAGIC, NONE, Section, Segment};
use crate::archive::zstd;
use crate::hash;
use std::collections::HashMap;
use std::ops::Range;

/// Sections shorter than this do not become smaller.
const MIN_COMPRESSED: usize = 64;

/// A segment of these events of `source`, whose contents were loaded whole: what the packer would write for
/// them, each section compressed where it was in the source.
///
/// # Errors
/// [`Error::Archive`].
pub fn filtered(source: &Segment, events: &Events, kept: &[u32]) -> Result<Vec<u8>, Error> {
    let kept = Kept::new(kept);
    let mut sections: Vec<_> = Section::ALL
        .into_iter()
        .filter(|section| kept.have(events, *section))
        .collect();
    if sections.is_empty() && kept.count > 0 {
        // Some bytes there must be to vouch for the number of events.
        sections.push(Section::Others);
    }
    let start = HEADER + ENTRY * sections.len() + CHECKSUM;
    let sizes = sections.iter().map(|section| kept.size(events, *section));
    let mut output = Vec::with_capacity(start + sizes.sum::<usize>());
    output.resize(start, 0);
    let mut table = Vec::new();
    for section in sections {
        let offset = output.len();
        kept.write(events, section, &mut output);
        let content = output.get(offset..).unwrap_or_default();
        let size = content.len();
        let codec = source.codec(section).unwrap_or(Codec::Stored);
        let frame = compressed(content, codec, source.dictionary)?;
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
    for (place, byte) in output.iter_mut().zip(head(kept.count, &table)) {
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

    /// Whether one of them has something in a section.
    fn have(&self, events: &Events, section: Section) -> bool {
        self.events()
            .any(|event| events.cell(section, event).is_some())
    }

    /// About how many bytes a section will take; more only where there are names that nobody has.
    fn size(&self, events: &Events, section: Section) -> usize {
        let ends = 4 * self.count;
        match section {
            Section::Versions | Section::Positions | Section::EpochUs => 8 * self.count,
            Section::EventIds => {
                let ids = events.ids().map_or(0, |ids| self.bytes(ids.ids));
                self.count.div_ceil(8) + ends + ids
            }
            Section::Types | Section::Streams => {
                let names = events.names(section).map_or(0, |names| names.size());
                ends + 4 + names.min(8 * ends)
            }
            Section::Data | Section::Metadata | Section::Others => {
                ends + events.payloads(section).map_or(0, |all| self.bytes(all))
            }
        }
    }

    fn bytes(&self, pieces: Pieces) -> usize {
        self.pieces(pieces).map(<[u8]>::len).sum()
    }

    /// The pieces of each run together.
    fn pieces<'c>(&self, pieces: Pieces<'c>) -> impl Iterator<Item = &'c [u8]> {
        let runs = self.runs.iter().cloned();
        runs.filter_map(move |run| pieces.together(run))
    }

    fn write(&self, events: &Events, section: Section, output: &mut Vec<u8>) {
        match section {
            Section::Versions | Section::Positions | Section::EpochUs => {
                self.write_integers(events, section, output);
            }
            Section::EventIds => self.write_ids(events, output),
            Section::Types | Section::Streams => match events.names(section) {
                Some(names) => self.write_names(names, output),
                None => output.resize(output.len() + 4 * self.count + 4, 0),
            },
            Section::Data | Section::Metadata | Section::Others => {
                self.write_pieces(events.payloads(section), output);
            }
        }
    }

    fn write_integers(&self, events: &Events, section: Section, output: &mut Vec<u8>) {
        match events.integers(section) {
            Some(integers) => {
                for run in &self.runs {
                    output.extend(integers.bytes(run.clone()));
                }
            }
            None => output.extend(NONE.to_le_bytes().repeat(self.count)),
        }
    }

    fn write_ids(&self, events: &Events, output: &mut Vec<u8>) {
        let ids = events.ids();
        let (mut byte, mut bit) = (0_u8, 0);
        for event in self.events() {
            byte |= u8::from(ids.is_some_and(|ids| ids.has(event))) << bit;
            bit = (bit + 1) % 8;
            if bit == 0 {
                output.push(byte);
                byte = 0;
            }
        }
        if bit > 0 {
            output.push(byte);
        }
        self.write_pieces(ids.map(|ids| ids.ids), output);
    }

    /// Ends, and then the pieces. They come from a section, so together they are shorter than 4 GiB.
    fn write_pieces(&self, pieces: Option<Pieces>, output: &mut Vec<u8>) {
        let Some(pieces) = pieces else {
            return output.resize(output.len() + 4 * self.count, 0);
        };
        let mut end = 0;
        for event in self.events() {
            end += pieces.get(event).map_or(0, |piece| piece.len() as u32);
            output.extend(end.to_le_bytes());
        }
        for together in self.pieces(pieces) {
            output.extend(together);
        }
    }

    /// Names again in the order of their first use; those that a forged segment repeats become one.
    fn write_names(&self, names: &Names, output: &mut Vec<u8>) {
        let mut used = Vec::new();
        let mut codes = HashMap::new();
        // By their numbers in the source, 0 for those that did not come up yet.
        let mut known = vec![0; names.count()];
        for event in self.events() {
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
        output.extend((used.len() as u32).to_le_bytes());
        let mut end = 0;
        for name in &used {
            end += name.len() as u32;
            output.extend(end.to_le_bytes());
        }
        output.extend(used.concat());
    }
}
