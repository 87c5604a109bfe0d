//! What is in the sections, event by event.

use super::{Error, NONE, Section, Sections, Segment};
use std::borrow::Cow;
use std::ops::Range;

const END: usize = 4;
const INTEGER: usize = 8;

/// The contents of those sections that a question needs, checked; [`Contents::events`] reads them.
pub struct Contents<'a> {
    count: usize,
    sections: [Option<Cow<'a, [u8]>>; 9],
}

impl<'a> Segment<'a> {
    /// Checks and, where they are compressed, decompresses these sections, in the order of their ids.
    ///
    /// # Errors
    /// [`Error::Corrupt`] and [`Error::Archive`], of the first section that has one.
    pub fn contents(&self, wanted: Sections) -> Result<Contents<'a>, Error> {
        let mut sections = [const { None }; 9];
        for (section, place) in Section::ALL.into_iter().zip(&mut sections) {
            if wanted.contains(section) {
                *place = self.content(section)?;
                let is_right = match place {
                    Some(bytes) => is_right(section, self.count(), bytes),
                    None => true,
                };
                if !is_right {
                    return Err(Error::Corrupt(section));
                }
            }
        }
        Ok(Contents {
            count: self.count(),
            sections,
        })
    }
}

impl Contents<'_> {
    /// The events, as far as their sections were asked for.
    #[must_use]
    pub fn events(&self) -> Events<'_> {
        let bytes = |section: Section| self.sections.get(section.index())?.as_deref();
        let integers = |section| bytes(section).map(Integers);
        let names = |section| Names::split(bytes(section)?, self.count);
        let payloads = |section| Pieces::split(bytes(section)?, self.count);
        Events {
            count: self.count,
            integers: [
                integers(Section::Versions),
                integers(Section::Positions),
                integers(Section::EpochUs),
            ],
            ids: bytes(Section::EventIds).and_then(|bytes| Ids::split(bytes, self.count)),
            names: [names(Section::Types), names(Section::Streams)],
            payloads: [
                payloads(Section::Data),
                payloads(Section::Metadata),
                payloads(Section::Others),
            ],
        }
    }
}

/// The events of a segment. A section that was not asked for is as one that no event has.
#[derive(Clone, Copy)]
pub struct Events<'c> {
    count: usize,
    integers: [Option<Integers<'c>>; 3],
    ids: Option<Ids<'c>>,
    names: [Option<Names<'c>>; 2],
    payloads: [Option<Pieces<'c>>; 3],
}

/// A value of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell<'c> {
    /// Of a column of integers.
    Integer(i64),
    /// Of columns of ids and names.
    Binary(&'c [u8]),
    /// Of data, metadata and others, with its version byte, if it has one; it is not empty.
    Payload(&'c [u8]),
}

impl<'c> Events<'c> {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// What an event has in a column.
    #[must_use]
    #[inline]
    pub fn cell(&self, section: Section, event: usize) -> Option<Cell<'c>> {
        let [versions, positions, epoch_us] = &self.integers;
        let [types, streams] = &self.names;
        match section {
            Section::Versions => integer(versions.as_ref(), event),
            Section::Positions => integer(positions.as_ref(), event),
            Section::EpochUs => integer(epoch_us.as_ref(), event),
            Section::EventIds => self.ids.as_ref()?.get(event).map(Cell::Binary),
            Section::Types => types.as_ref()?.get(event).map(Cell::Binary),
            Section::Streams => streams.as_ref()?.get(event).map(Cell::Binary),
            Section::Data | Section::Metadata | Section::Others => {
                self.payload(section, event).map(Cell::Payload)
            }
        }
    }

    /// The payload of an event in one of the last three sections; none is never empty.
    #[must_use]
    #[inline]
    pub fn payload(&self, section: Section, event: usize) -> Option<&'c [u8]> {
        let [data, metadata, others] = &self.payloads;
        let payloads = match section {
            Section::Data => data,
            Section::Metadata => metadata,
            _ => others,
        };
        let payload = payloads.as_ref()?.get(event)?;
        (!payload.is_empty()).then_some(payload)
    }

    /// The column of versions, positions or times.
    pub(super) fn integers(&self, section: Section) -> Option<Integers<'c>> {
        let [versions, positions, epoch_us] = self.integers;
        match section {
            Section::Versions => versions,
            Section::Positions => positions,
            Section::EpochUs => epoch_us,
            _ => None,
        }
    }

    /// The column of ids.
    pub(super) fn ids(&self) -> Option<Ids<'c>> {
        self.ids
    }

    /// The column of data, metadata or others.
    pub(super) fn payloads(&self, section: Section) -> Option<Pieces<'c>> {
        let [data, metadata, others] = self.payloads;
        match section {
            Section::Data => data,
            Section::Metadata => metadata,
            Section::Others => others,
            _ => None,
        }
    }

    /// The column of types or streams.
    #[must_use]
    pub fn names(&self, section: Section) -> Option<&Names<'c>> {
        let [types, streams] = &self.names;
        match section {
            Section::Types => types.as_ref(),
            Section::Streams => streams.as_ref(),
            _ => None,
        }
    }
}

#[inline]
fn integer<'c>(column: Option<&Integers>, event: usize) -> Option<Cell<'c>> {
    column?.get(event).map(Cell::Integer)
}

/// An integer for each event.
#[derive(Clone, Copy)]
pub(super) struct Integers<'c>(&'c [u8]);

impl Integers<'_> {
    /// The bytes of the values of these events.
    pub(super) fn bytes(&self, events: Range<usize>) -> &[u8] {
        let range = INTEGER * events.start..INTEGER * events.end;
        self.0.get(range).unwrap_or_default()
    }

    #[inline]
    pub(super) fn get(self, event: usize) -> Option<i64> {
        let bytes = self.0.get(INTEGER * event..)?.first_chunk()?;
        Some(i64::from_le_bytes(*bytes)).filter(|value| *value != NONE)
    }
}

/// Pieces of bytes by their ends.
#[derive(Clone, Copy)]
pub(super) struct Pieces<'c> {
    ends: &'c [u8],
    bytes: &'c [u8],
}

impl<'c> Pieces<'c> {
    fn split(bytes: &'c [u8], count: usize) -> Option<Self> {
        let (ends, bytes) = bytes.split_at_checked(END.checked_mul(count)?)?;
        Some(Self { ends, bytes })
    }

    /// Ascending, and the last one at the end of the bytes.
    fn are_right(self) -> bool {
        let last = self
            .ends
            .last_chunk()
            .map_or(0, |end| u32::from_le_bytes(*end));
        let next = ends(self.ends.get(END..).unwrap_or_default());
        // No early exit: so several are compared at once.
        let ascend = ends(self.ends)
            .zip(next)
            .fold(true, |ascend, (end, next)| ascend & (end <= next));
        ascend && last as usize == self.bytes.len()
    }

    #[inline]
    pub(super) fn get(self, place: usize) -> Option<&'c [u8]> {
        self.together(place..place + 1)
    }

    /// Pieces one behind the other.
    #[inline]
    pub(super) fn together(self, places: Range<usize>) -> Option<&'c [u8]> {
        let end = |place: usize| number(self.ends, place);
        let start = places.start.checked_sub(1).map_or(Some(0), end)?;
        self.bytes.get(start..end(places.end.checked_sub(1)?)?)
    }
}

#[inline]
fn number(bytes: &[u8], place: usize) -> Option<usize> {
    let number = bytes.get(END * place..)?.first_chunk()?;
    Some(u32::from_le_bytes(*number) as usize)
}

fn ends(bytes: &[u8]) -> impl Iterator<Item = u32> + '_ {
    bytes.chunks_exact(END).map(|end| match end {
        [a, b, c, d] => u32::from_le_bytes([*a, *b, *c, *d]),
        _ => 0,
    })
}

/// An id for each event that has one.
#[derive(Clone, Copy)]
pub(super) struct Ids<'c> {
    present: &'c [u8],
    pub(super) ids: Pieces<'c>,
}

impl<'c> Ids<'c> {
    fn split(bytes: &'c [u8], count: usize) -> Option<Self> {
        let (present, bytes) = bytes.split_at_checked(count.div_ceil(8))?;
        let ids = Pieces::split(bytes, count)?;
        Some(Self { present, ids })
    }

    /// Nothing is said of events behind the last one, and who has no id has no bytes.
    fn are_right(self, count: usize) -> bool {
        self.ids.are_right()
            && (count..8 * self.present.len()).all(|event| !self.has(event))
            && (0..count)
                .all(|event| self.has(event) || self.ids.get(event).is_some_and(<[u8]>::is_empty))
    }

    #[inline]
    pub(super) fn has(self, event: usize) -> bool {
        let byte = self.present.get(event / 8);
        byte.is_some_and(|byte| byte >> (event % 8) & 1 == 1)
    }

    #[inline]
    fn get(self, event: usize) -> Option<&'c [u8]> {
        self.has(event).then(|| self.ids.get(event))?
    }
}

/// Names, each once, and for each event the number of its own.
#[derive(Clone, Copy)]
pub struct Names<'c> {
    codes: &'c [u8],
    count: usize,
    names: Pieces<'c>,
}

impl<'c> Names<'c> {
    fn split(bytes: &'c [u8], count: usize) -> Option<Self> {
        let (codes, bytes) = bytes.split_at_checked(END * count)?;
        let (count, bytes) = bytes.split_first_chunk()?;
        let count = u32::from_le_bytes(*count) as usize;
        let names = Pieces::split(bytes, count)?;
        Some(Self {
            codes,
            count,
            names,
        })
    }

    /// No more names than events, so that what is made for each name is as bounded as what is for each event.
    fn are_right(self) -> bool {
        self.count <= self.codes.len() / END
            && self.names.are_right()
            && ends(self.codes).all(|code| code as usize <= self.count)
    }

    /// The number of an event's name, counted from 0, if it has one.
    #[must_use]
    #[inline]
    pub fn code(&self, event: usize) -> Option<usize> {
        number(self.codes, event)?.checked_sub(1)
    }

    /// How many names there are; a forged segment repeats some.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// The name of an event, if it has one.
    #[must_use]
    #[inline]
    pub fn get(&self, event: usize) -> Option<&'c [u8]> {
        self.names.get(self.code(event)?)
    }
}

/// Whether these are the bytes of such a section.
fn is_right(section: Section, count: usize, bytes: &[u8]) -> bool {
    match section {
        Section::Versions | Section::Positions | Section::EpochUs => bytes.len() == INTEGER * count,
        Section::EventIds => Ids::split(bytes, count).is_some_and(|ids| ids.are_right(count)),
        Section::Types | Section::Streams => {
            Names::split(bytes, count).is_some_and(Names::are_right)
        }
        Section::Data | Section::Metadata | Section::Others => {
            Pieces::split(bytes, count).is_some_and(Pieces::are_right)
        }
    }
}
