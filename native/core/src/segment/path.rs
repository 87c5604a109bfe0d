//! Paths to fields, and the fields of events.

use super::columns::{Cell, Events};
use super::{Error, Section, Sections};
use crate::etf::{Key, Malformed, Reader, Term, Walk};
use crate::number::Number;

/// The envelope keys that have a column, by their encodings.
const COLUMNS: [(&[u8], Section); 8] = [
    (b"w\x07version", Section::Versions),
    (b"w\x08position", Section::Positions),
    (b"w\x08epoch_us", Section::EpochUs),
    (b"w\x08event_id", Section::EventIds),
    (b"w\x0Aevent_type", Section::Types),
    (b"w\x09stream_id", Section::Streams),
    (b"w\x04data", Section::Data),
    (b"w\x08metadata", Section::Metadata),
];

/// The columns in their order, each with the encoding of its key.
pub fn columns() -> impl Iterator<Item = (&'static [u8], Section)> {
    COLUMNS.into_iter()
}

/// Where a field is: keys below each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    is_in_data: bool,
    /// The column that the first key has.
    column: Option<Section>,
    first: Key,
    rest: Vec<Key>,
}

/// The value of a field, where it lies.
#[derive(Clone, Copy, Debug)]
pub enum Value<'c> {
    /// In a column of integers.
    Integer(i64),
    /// In a column of names or ids.
    Binary(&'c [u8]),
    /// In a payload of this section.
    Term(Section, Term<'c>),
}

impl Path {
    /// The path at the beginning of what is read: `{data | event, [Key, ...]}`.
    #[must_use]
    pub fn read(reader: &mut Reader) -> Option<Self> {
        if reader.tuple()? != 2 {
            return None;
        }
        let is_in_data = match reader.atom()? {
            b"data" => true,
            b"event" => false,
            _ => return None,
        };
        let mut keys = reader.list()?.into_iter();
        let first = keys.next()?;
        let column = COLUMNS.iter().find(|(key, _)| **key == *first);
        Some(Self {
            is_in_data,
            column: column.map(|(_, section)| *section),
            first: Key::new(&first),
            rest: keys.map(|key| Key::new(&key)).collect(),
        })
    }

    /// The path in its canonical form: one whole term.
    #[must_use]
    pub fn decode(canonical: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(canonical)?;
        let path = Self::read(&mut reader)?;
        reader.is_at_end().then_some(path)
    }

    /// The sections in which the field can be.
    #[must_use]
    pub fn sections(&self) -> Sections {
        let sections = match self.column {
            Some(section) => Sections::default().with(section),
            None => Sections::default(),
        };
        match (self.is_in_data, self.column) {
            (true, _) => sections.with(Section::Data).with(Section::Others),
            (false, Some(Section::Metadata)) => sections,
            (false, _) => sections.with(Section::Others),
        }
    }

    /// The column that is the field, when every event has its value there or nowhere.
    #[must_use]
    pub fn names_section(&self) -> Option<Section> {
        let column = self
            .column
            .filter(|_| !self.is_in_data && self.rest.is_empty())?;
        matches!(column, Section::Types | Section::Streams).then_some(column)
    }

    fn in_event<'c>(&self, events: &Events<'c>, event: usize) -> Result<Option<Value<'c>>, Error> {
        if let Some(section) = self.column {
            let is_payload = matches!(section, Section::Data | Section::Metadata);
            match events.cell(section, event) {
                Some(Cell::Integer(value)) => return Ok(Some(Value::Integer(value))),
                Some(Cell::Binary(bytes)) => return Ok(Some(Value::Binary(bytes))),
                Some(Cell::Payload(payload)) => {
                    let term = found(Term::versioned(payload), section)?;
                    return Ok(Some(Value::Term(section, term)));
                }
                None if is_payload => return Ok(None),
                None => {}
            }
        }
        let section = Section::Others;
        let Some(payload) = events.payload(section, event) else {
            return Ok(None);
        };
        let others = found(Term::versioned(payload), section)?;
        let value = found(others.get(&self.first), section)?;
        Ok(value.map(|term| Value::Term(section, term)))
    }

    #[inline]
    fn below<'c>(&self, mut value: Option<Value<'c>>) -> Result<Option<Value<'c>>, Error> {
        for key in &self.rest {
            value = match value {
                Some(Value::Term(section, term)) => {
                    let inner = found(term.get(key), section)?;
                    inner.map(|term| Value::Term(section, term))
                }
                _ => None,
            };
        }
        Ok(value)
    }
}

/// On one walk no more keys are looked for, since each is compared with each.
const TOGETHER: usize = 16;

/// Paths of one question: the data of an event is walked once for the first keys of all of them, if these are not
/// too many.
#[derive(Debug, Default)]
pub struct Paths {
    /// Those in data with the place of their first key among the keys.
    paths: Vec<(Path, Option<usize>)>,
    keys: Vec<Key>,
}

impl Paths {
    /// One path more; its place is the number of those before it.
    pub fn push(&mut self, path: Path) {
        let mut place = None;
        if path.is_in_data {
            place = self.keys.iter().position(|key| *key == path.first);
            if place.is_none() && self.keys.len() < TOGETHER {
                place = Some(self.keys.len());
                self.keys.push(path.first.clone());
            }
        }
        self.paths.push((path, place));
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.paths.len()
    }

    /// The sections in which their fields can be.
    #[must_use]
    pub fn sections(&self) -> Sections {
        let sections = self.paths.iter().map(|(path, _)| path.sections());
        sections.fold(Sections::default(), Sections::and)
    }

    /// The path at a place.
    #[must_use]
    pub fn get(&self, place: usize) -> Option<&Path> {
        self.paths.get(place).map(|(path, _)| path)
    }
}

impl FromIterator<Path> for Paths {
    fn from_iter<I: IntoIterator<Item = Path>>(paths: I) -> Self {
        let mut all = Self::default();
        paths.into_iter().for_each(|path| all.push(path));
        all
    }
}

/// The fields of one event after the other. Each is looked up when it is asked for, and what its payload has of
/// malformed only tells whoever comes to it.
pub struct Fields<'q, 'c> {
    paths: &'q Paths,
    events: Events<'c>,
    event: usize,
    data: Data<'c>,
    walk: Walk<'c>,
}

/// What is known of an event's data.
#[derive(Clone, Copy)]
enum Data<'c> {
    Unseen,
    Map(Term<'c>),
    /// The event itself stands for it.
    None,
}

impl<'q, 'c> Fields<'q, 'c> {
    /// At the first event.
    #[must_use]
    pub fn new(paths: &'q Paths, events: Events<'c>) -> Self {
        Self {
            paths,
            events,
            event: 0,
            data: Data::Unseen,
            walk: Walk::new(paths.keys.len()),
        }
    }

    /// The events.
    #[must_use]
    pub fn events(&self) -> &Events<'c> {
        &self.events
    }

    /// Goes to another event.
    #[inline]
    pub fn go_to(&mut self, event: usize) {
        self.event = event;
        self.data = Data::Unseen;
    }

    /// The field at the path of this place.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for a payload that is malformed on the way.
    #[inline(always)]
    pub fn get(&mut self, place: usize) -> Result<Option<Value<'c>>, Error> {
        let paths = self.paths;
        let Some((path, key)) = paths.paths.get(place) else {
            return Ok(None);
        };
        let section = Section::Data;
        let value = match self.data(path) {
            Data::Map(map) => {
                let term = match key {
                    Some(key) if paths.paths.len() > 1 => self.walk.get(&paths.keys, *key),
                    _ => map.get(&path.first),
                };
                found(term, section)?.map(|term| Value::Term(section, term))
            }
            _ => path.in_event(&self.events, self.event)?,
        };
        path.below(value)
    }

    /// The data, where the path begins there.
    #[inline]
    fn data(&mut self, path: &Path) -> Data<'c> {
        match self.data {
            _ if !path.is_in_data => Data::None,
            Data::Unseen => {
                let payload = self.events.payload(Section::Data, self.event);
                self.data = match payload.and_then(Term::versioned_map) {
                    Some(map) => {
                        if self.paths.count() > 1 {
                            self.walk.begin(map);
                        }
                        Data::Map(map)
                    }
                    None => Data::None,
                };
                self.data
            }
            known => known,
        }
    }
}

impl<'c> Value<'c> {
    /// The number that it is.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    #[inline]
    pub fn number(&self) -> Result<Option<Number>, Error> {
        match self {
            Self::Integer(value) => Ok(Some(Number::Int(*value))),
            Self::Binary(_) => Ok(None),
            Self::Term(section, term) => found(term.number(), *section),
        }
    }

    /// The number that it counts for: itself, or that of a `{sum, Number}`.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    #[inline]
    pub fn counted(&self) -> Result<Option<Number>, Error> {
        match self {
            Self::Term(section, term) => match found(term.number(), *section)? {
                Some(number) => Ok(Some(number)),
                None => match term.tagged_sum() {
                    Some(sum) => found(sum.number(), *section),
                    None => Ok(None),
                },
            },
            _ => self.number(),
        }
    }

    /// The binary that it is.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    #[inline]
    pub fn binary(&self) -> Result<Option<&'c [u8]>, Error> {
        match self {
            Self::Integer(_) => Ok(None),
            Self::Binary(bytes) => Ok(Some(bytes)),
            Self::Term(section, term) => found(term.binary(), *section),
        }
    }
}

/// What was found in a section, or that it is malformed.
#[inline]
pub fn found<T>(result: Result<T, Malformed>, section: Section) -> Result<T, Error> {
    result.map_err(|Malformed| Error::Corrupt(section))
}
