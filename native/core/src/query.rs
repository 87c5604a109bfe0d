//! Questions to packed segments, one or many, answered on their bytes: no term is built.
//!
//! Segments answer each for itself and, above [`PARALLEL`] bytes, at the same time; their answers are put
//! together in their order. So the result, and which error it is when there are several, does not depend on the
//! number of threads.

use crate::aggregate::{Accumulator, Fold, Groups, Kind, Tagged};
use crate::etf::{Reader, Term, write};
use crate::hash;
use crate::number::{Number, Overflow};
use crate::predicate::{Asked, Predicate};
use crate::segment::{
    self, Cell, Contents, Events, Fields, Part, Path, Paths, Section, Sections, Segment, Value,
    found,
};
use std::borrow::Cow;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::num::NonZeroUsize;
use std::sync::atomic::{self, AtomicU64, AtomicUsize};
use std::thread;

/// Segments whose sections are as large as this together, decompressed, are shared out among threads.
pub const PARALLEL: usize = 1 << 20;

/// Of one answer no more bytes of encodings are built.
pub const MAX_BUILT: usize = 1 << 28;

/// Of one answer no more parts are made: events, rows and their values, groups and their numbers, fields.
pub const MAX_PARTS: usize = 1 << 24;

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// A segment cannot be read.
    Segment(segment::Error),
    /// A number that leaves the range of floats, or of integers: `badarith`.
    Overflow,
    /// The answer has more parts than were allowed.
    TooMany,
}

impl From<segment::Error> for Error {
    fn from(error: segment::Error) -> Self {
        Self::Segment(error)
    }
}

impl From<Overflow> for Error {
    fn from(_: Overflow) -> Self {
        Self::Overflow
    }
}

/// A segment that is asked, with the dictionary it may need.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// All of it.
    pub bytes: &'a [u8],
    /// What it was compressed with.
    pub dictionary: segment::Given<'a>,
}

impl<'a> Source<'a> {
    fn open(self) -> Result<Segment<'a>, segment::Error> {
        Segment::open(self.bytes, self.dictionary)
    }

    fn contents(self, sections: Sections) -> Result<Contents<'a>, segment::Error> {
        self.open()?.contents(sections)
    }
}

/// An answer of each segment, in their order.
fn each<'a, T: Send>(
    sources: &[Source<'a>],
    threads: NonZeroUsize,
    ask: impl Fn(Source<'a>) -> Result<T, Error> + Sync,
) -> Vec<Result<T, Error>> {
    let threads = threads.get().min(sources.len());
    if threads < 2 || !are_large(sources) {
        return sources.iter().map(|source| ask(*source)).collect();
    }
    let next = AtomicUsize::new(0);
    let work = || {
        let mut answers = Vec::new();
        loop {
            let place = next.fetch_add(1, atomic::Ordering::Relaxed);
            match sources.get(place) {
                Some(source) => answers.push((place, ask(*source))),
                None => return answers,
            }
        }
    };
    let mut answers = thread::scope(|scope| {
        let mut helpers = Vec::new();
        for _ in 1..threads {
            // Where no thread is to be had, this one does the work alone.
            helpers.extend(thread::Builder::new().spawn_scoped(scope, work));
        }
        let mut answers = work();
        for helper in helpers {
            match helper.join() {
                Ok(more) => answers.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        answers
    });
    answers.sort_by_key(|(place, _)| *place);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

/// Whether what is to be read of these segments, once decompressed, is worth threads.
fn are_large(sources: &[Source]) -> bool {
    let mut left = PARALLEL as u64;
    let mut sizes = sources.iter().map(|source| match source.open() {
        Ok(segment) => segment.unpacked_size(),
        Err(_) => 0,
    });
    sizes.any(|size| {
        left = left.saturating_sub(size);
        left == 0
    })
}

/// The events of each segment that match, counted from 0.
///
/// With a limit there are no more of all segments together, and who comes behind is not asked.
///
/// # Errors
/// [`Error::Segment`], of the first segment that has one; without a limit, that they are more than [`MAX_PARTS`].
pub fn matching(
    sources: &[Source],
    predicate: &Predicate,
    limit: Option<usize>,
    threads: NonZeroUsize,
) -> Result<Vec<Vec<u32>>, Error> {
    let Some(mut left) = limit else {
        // Once there are too many for one answer, the rest is looked at for its errors only.
        let count = AtomicUsize::new(0);
        let all = each(sources, threads, |source| {
            let found = matching_in(source, predicate, usize::MAX)?;
            let before = count.fetch_add(found.len(), atomic::Ordering::Relaxed);
            Ok((before.saturating_add(found.len()) <= MAX_PARTS).then_some(found))
        });
        let all = all.into_iter().collect::<Result<Vec<_>, _>>()?;
        let all: Option<Vec<_>> = all.into_iter().collect();
        return Ok(all.ok_or(segment::Error::TooLarge)?);
    };
    let mut all = Vec::new();
    for source in sources {
        let found = match left {
            0 => Vec::new(),
            _ => matching_in(*source, predicate, left)?,
        };
        left -= found.len();
        all.push(found);
    }
    Ok(all)
}

fn matching_in(source: Source, predicate: &Predicate, limit: usize) -> Result<Vec<u32>, Error> {
    let contents = source.contents(predicate.sections())?;
    Ok(matching_of(&contents.events(), predicate, limit)?)
}

fn matching_of(
    events: &Events,
    predicate: &Predicate,
    limit: usize,
) -> Result<Vec<u32>, segment::Error> {
    let mut asked = Asked::new(predicate, *events);
    let mut found = Vec::new();
    for event in 0..events.count() {
        if found.len() == limit {
            break;
        }
        if asked.matches(event)? {
            found.push(event as u32);
        }
    }
    Ok(found)
}

/// One segment of the events of all that match, in their order, with those sections compressed that are so in one
/// of the sources, by the first dictionary among them.
///
/// # Errors
/// [`Error::Segment`]; everything is checked, because everything is copied.
pub fn filtered(
    sources: &[Source],
    predicate: &Predicate,
    threads: NonZeroUsize,
) -> Result<Vec<u8>, Error> {
    let dictionary = sources.iter().find_map(|source| source.dictionary);
    if let [source] = sources {
        let segment = source.open()?;
        let compress = segment.compressed();
        return filtered_in(&segment, predicate, compress, dictionary);
    }
    // Once there is too much for one segment, the rest is looked at for its errors only.
    let size = AtomicU64::new(0);
    let count = AtomicUsize::new(0);
    let parts = each(sources, threads, |source| {
        let segment = source.open()?;
        let part = filtered_in(&segment, predicate, Sections::default(), None)?;
        let payloads = [Section::Data, Section::Metadata, Section::Others];
        let kept = Segment::open(&part, None)?;
        let more = payloads
            .iter()
            .map(|section| kept.section_size(*section))
            .sum();
        let size = more + size.fetch_add(more, atomic::Ordering::Relaxed);
        let more = kept.count();
        let count = more + count.fetch_add(more, atomic::Ordering::Relaxed);
        let fits = size <= segment::MAX_SIZE && count <= segment::MAX_COUNT;
        Ok((fits.then_some(part), segment.compressed()))
    });
    let parts = parts.into_iter().collect::<Result<Vec<_>, _>>()?;
    let compress = parts.iter().map(|(_, compressed)| *compressed);
    let compress = compress.fold(Sections::default(), Sections::and);
    let parts: Option<Vec<_>> = parts.into_iter().map(|(part, _)| part).collect();
    let parts = parts.ok_or(segment::Error::TooLarge)?;
    let contents = parts
        .iter()
        .map(|part| Segment::open(part, None)?.contents(Sections::ALL))
        .collect::<Result<Vec<_>, _>>()?;
    let parts: Vec<_> = contents
        .iter()
        .map(|contents| Part::all(contents.events()))
        .collect();
    Ok(segment::joined(&parts, compress, dictionary)?)
}

fn filtered_in(
    segment: &Segment,
    predicate: &Predicate,
    compress: Sections,
    dictionary: segment::Given,
) -> Result<Vec<u8>, Error> {
    let contents = segment.contents(Sections::ALL)?;
    let events = contents.events();
    let kept = matching_of(&events, predicate, usize::MAX)?;
    let part = Part::some(events, &kept);
    Ok(segment::joined(&[part], compress, dictionary)?)
}

/// How many events match.
///
/// # Errors
/// [`Error::Segment`].
pub fn counted(
    sources: &[Source],
    predicate: &Predicate,
    threads: NonZeroUsize,
) -> Result<usize, Error> {
    let counts = each(sources, threads, |source| {
        let contents = source.contents(predicate.sections())?;
        let events = contents.events();
        let mut asked = Asked::new(predicate, events);
        let mut count = 0;
        for event in 0..events.count() {
            count += usize::from(asked.matches(event)?);
        }
        Ok(count)
    });
    counts.into_iter().sum()
}

/// What is asked about the events of a group.
pub struct Aggregate {
    kind: Kind,
    /// Where the number is; none for the count.
    path: Option<Path>,
}

impl Aggregate {
    /// A question about the numbers of a field.
    #[must_use]
    pub fn new(kind: Kind, path: Path) -> Self {
        Self {
            kind,
            path: Some(path),
        }
    }

    /// A canonical list of `count` and `{sum | min | max | avg, Path}`; none if these bytes are none.
    #[must_use]
    pub fn decode(canonical: &[u8]) -> Option<Vec<Self>> {
        let mut reader = Reader::new(canonical)?;
        let length = reader.enter_list()?;
        let mut aggregates = Vec::new();
        for _ in 0..length {
            aggregates.push(Self::read(&mut reader)?);
        }
        if length > 0 {
            reader.end()?;
        }
        reader.is_at_end().then_some(aggregates)
    }

    fn read(reader: &mut Reader) -> Option<Self> {
        if !reader.is_at_tuple() {
            let is_count = reader.atom()? == b"count";
            return is_count.then_some(Self {
                kind: Kind::Count,
                path: None,
            });
        }
        let kind = match (reader.tuple()?, reader.atom()?) {
            (2, b"sum") => Kind::Sum,
            (2, b"min") => Kind::Min,
            (2, b"max") => Kind::Max,
            (2, b"avg") => Kind::Avg,
            _ => return None,
        };
        Some(Self::new(kind, Path::read(reader)?))
    }
}

/// Counts the event, and the number of its field at a place of the paths, if there is one.
#[inline]
fn add(
    accumulator: &mut Accumulator,
    place: Option<usize>,
    fields: &mut Fields,
) -> Result<(), Error> {
    let number = match place {
        None => None,
        Some(place) => match fields.get(place)? {
            None => None,
            Some(value) => value.counted()?,
        },
    };
    Ok(accumulator.add(number.as_ref())?)
}

/// The aggregate of all events; none is `undefined`.
///
/// # Errors
/// [`Error`].
pub fn aggregated(
    sources: &[Source],
    aggregate: &Aggregate,
    threads: NonZeroUsize,
) -> Result<Option<Number>, Error> {
    let paths: Paths = aggregate.path.iter().cloned().collect();
    let place = aggregate.path.is_some().then_some(0);
    let parts = each(sources, threads, |source| {
        let contents = source.contents(paths.sections())?;
        let events = contents.events();
        let mut fields = Fields::new(&paths, events);
        let mut accumulator = Accumulator::new(aggregate.kind);
        for event in 0..events.count() {
            fields.go_to(event);
            add(&mut accumulator, place, &mut fields)?;
        }
        Ok(accumulator)
    });
    let parts = parts.into_iter().collect::<Result<Vec<_>, _>>()?;
    let mut all = Accumulator::new(aggregate.kind);
    for part in parts {
        all.merge(&part)?;
    }
    Ok(all.result()?)
}

/// A group of events.
pub struct Group {
    /// The encoding of what they have in common.
    pub key: Vec<u8>,
    /// The section in which it was found first.
    pub section: Section,
    /// The answers to the aggregates in their order.
    pub answers: Vec<Accumulator>,
}

/// The encoding of `undefined`.
const UNDEFINED: &[u8] = b"w\x09undefined";

type Key = Cow<'static, [u8]>;

/// Hashes short encodings three times as fast as the standard library's default, and with a seed that is chosen
/// anew for each table: who writes events cannot choose keys that collide.
#[derive(Clone)]
struct Seeded(u64);

impl Default for Seeded {
    fn default() -> Self {
        Self(RandomState::new().hash_one(0))
    }
}

impl BuildHasher for Seeded {
    type Hasher = SeededHasher;

    fn build_hasher(&self) -> SeededHasher {
        SeededHasher(self.0)
    }
}

struct SeededHasher(u64);

impl Hasher for SeededHasher {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        self.0 = hash::xxhash3_seeded(bytes, self.0);
    }

    /// The number of bytes that follow, which their hash counts by itself.
    #[inline]
    fn write_usize(&mut self, _: usize) {}

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

/// Groups, and the sections of their keys in the same order.
struct Grouped<K> {
    groups: Groups<K, Seeded>,
    sections: Vec<Section>,
    /// The bytes of the keys.
    size: usize,
    /// How many groups there may be.
    most: usize,
}

impl<K: Eq + Hash + Clone + AsRef<[u8]>> Grouped<K> {
    fn new(aggregates: &[Aggregate]) -> Self {
        let kinds = aggregates.iter().map(|aggregate| aggregate.kind).collect();
        Self {
            groups: Groups::new(kinds),
            sections: Vec::new(),
            size: 0,
            most: MAX_PARTS / (1 + aggregates.len()),
        }
    }

    /// The place of a group, which is made where there is none and room for one.
    #[inline]
    fn place(&mut self, key: K, section: Section) -> Result<usize, segment::Error> {
        let size = key.as_ref().len();
        let place = self.groups.place(key);
        if place == self.sections.len() {
            self.size += size;
            if place >= self.most || self.size > MAX_BUILT {
                return Err(segment::Error::TooLarge);
            }
            self.sections.push(section);
        }
        Ok(place)
    }

    /// How much there is of it, in parts.
    fn parts(&self) -> usize {
        let groups = self
            .sections
            .len()
            .saturating_mul(MAX_PARTS / self.most.max(1));
        groups.saturating_add(self.size / (MAX_BUILT / MAX_PARTS))
    }
}

/// The events by the value of a field, told apart by its encoding, in the order of their first appearance.
///
/// # Errors
/// [`Error`]; [`Error::TooMany`] for more than `most` groups, [`segment::Error::TooLarge`] for more than have their
/// place in one answer.
pub fn grouped(
    sources: &[Source],
    by: &Path,
    aggregates: &[Aggregate],
    threads: NonZeroUsize,
    most: usize,
) -> Result<Vec<Group>, Error> {
    let question = Question::new(by, aggregates);
    // Once there are as many groups as one answer may have, the rest is asked one by one.
    let held = AtomicUsize::new(0);
    let parts = each(sources, threads, |source| {
        if held.load(atomic::Ordering::Relaxed) > MAX_PARTS {
            return Ok(None);
        }
        let part = grouped_in(source, &question, aggregates, most)?;
        held.fetch_add(part.parts(), atomic::Ordering::Relaxed);
        Ok(Some(part))
    });
    let mut all = Grouped::<Key>::new(aggregates);
    for (source, part) in sources.iter().zip(parts) {
        let part = match part? {
            Some(part) => part,
            None => grouped_in(*source, &question, aggregates, most)?,
        };
        for ((key, answers), section) in part.groups.iter().zip(&part.sections) {
            let place = all.place(key.clone(), *section)?;
            for (answer, more) in all.groups.at(place).iter_mut().zip(answers) {
                answer.merge(more)?;
            }
        }
        if all.sections.len() > most {
            return Err(Error::TooMany);
        }
    }
    let groups = all.groups.iter().zip(&all.sections);
    Ok(groups
        .map(|((key, answers), section)| Group {
            key: key.to_vec(),
            section: *section,
            answers: answers.to_vec(),
        })
        .collect())
}

/// What is looked up of each event: the field to group by, and those of the aggregates.
struct Question {
    paths: Paths,
    names: Option<Section>,
    /// For each aggregate the place of its path.
    places: Vec<Option<usize>>,
}

impl Question {
    fn new(by: &Path, aggregates: &[Aggregate]) -> Self {
        let mut paths = Paths::default();
        paths.push(by.clone());
        let places = aggregates.iter().map(|aggregate| {
            let path = aggregate.path.as_ref()?;
            let place = paths.count();
            paths.push(path.clone());
            Some(place)
        });
        Self {
            names: by.names_section(),
            places: places.collect(),
            paths,
        }
    }
}

fn grouped_in(
    source: Source,
    question: &Question,
    aggregates: &[Aggregate],
    most: usize,
) -> Result<Grouped<Key>, Error> {
    let contents = source.contents(question.paths.sections())?;
    let events = contents.events();
    let mut fields = Fields::new(&question.paths, events);
    let mut grouped = Grouped::<Cow<[u8]>>::new(aggregates);
    let mut lately = Lately::default();
    let names = question.names.and_then(|section| events.names(section));
    let mut known = vec![None; names.map_or(0, |names| names.count())];
    for event in 0..events.count() {
        fields.go_to(event);
        let code = names.and_then(|names| names.code(event));
        let known = code.and_then(|code| known.get_mut(code));
        let place = match known {
            Some(Some(place)) => *place,
            known => {
                let (key, section) = group_key(fields.get(0)?)?;
                let place = lately.place(key, |key| grouped.place(key, section))?;
                if let Some(known) = known {
                    *known = Some(place);
                }
                if place >= most {
                    return Err(Error::TooMany);
                }
                place
            }
        };
        for (path, answer) in question.places.iter().zip(grouped.groups.at(place)) {
            add(answer, *path, &mut fields)?;
        }
    }
    grouped.owned(aggregates)
}

/// Keys that came up lately, at places by their last bytes: most events are of few groups.
struct Lately<'c>([Option<(&'c [u8], usize)>; LATELY]);

const LATELY: usize = 64;

impl Default for Lately<'_> {
    fn default() -> Self {
        Self([None; LATELY])
    }
}

impl<'c> Lately<'c> {
    #[inline]
    fn place<E>(
        &mut self,
        key: Cow<'c, [u8]>,
        find: impl FnOnce(Cow<'c, [u8]>) -> Result<usize, E>,
    ) -> Result<usize, E> {
        let Cow::Borrowed(bytes) = key else {
            return find(key);
        };
        let word = match bytes.last_chunk() {
            Some(last) => u64::from_le_bytes(*last),
            None => bytes
                .iter()
                .fold(0, |word, byte| word << 8 | u64::from(*byte)),
        };
        // Fibonacci hashing: six bits of the product with 2^64 by the golden ratio.
        let at = (word.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 58) as usize;
        match self.0.get_mut(at) {
            Some(Some((known, place))) if *known == bytes => Ok(*place),
            other => {
                let place = find(key)?;
                if let Some(other) = other {
                    *other = Some((bytes, place));
                }
                Ok(place)
            }
        }
    }
}

impl Grouped<Cow<'_, [u8]>> {
    /// The same without the bytes of the segment.
    fn owned(self, aggregates: &[Aggregate]) -> Result<Grouped<Key>, Error> {
        let mut owned = Grouped::new(aggregates);
        for ((key, answers), section) in self.groups.iter().zip(&self.sections) {
            let place = owned.place(Cow::Owned(key.to_vec()), *section)?;
            for (answer, more) in owned.groups.at(place).iter_mut().zip(answers) {
                *answer = more.clone();
            }
        }
        Ok(owned)
    }
}

/// The encoding of a value, and where it was found: what has no term of its own counts as data.
fn group_key(value: Option<Value>) -> Result<(Cow<[u8]>, Section), segment::Error> {
    Ok(match value {
        None => (Cow::Borrowed(UNDEFINED), Section::Data),
        Some(Value::Term(section, term)) => {
            (Cow::Borrowed(found(term.encoded(), section)?), section)
        }
        Some(Value::Integer(value)) => (Cow::Owned(encoded(Cell::Integer(value))), Section::Data),
        Some(Value::Binary(bytes)) => (Cow::Owned(encoded(Cell::Binary(bytes))), Section::Data),
    })
}

fn encoded(cell: Cell) -> Vec<u8> {
    let mut output = Vec::new();
    match cell {
        Cell::Integer(value) => write::integer(&mut output, value),
        Cell::Binary(bytes) => write::binary(&mut output, bytes),
        Cell::Payload(bytes) => output.extend(bytes.iter().skip(1)),
    }
    output
}

/// A value in the state of a fold that is no tagged sum.
#[derive(Clone, Debug)]
pub enum Held<'c> {
    /// The field of the initial state with this number, and what it counts for a sum.
    Initial(usize, Option<Number>),
    /// A term by its encoding, and the section it was found in.
    Found(Section, Cow<'c, [u8]>),
    /// A column's value.
    Integer(i64),
    /// A column's value.
    Binary(Cow<'c, [u8]>),
}

impl Held<'_> {
    /// What it counts for a sum that is added to it.
    fn counts(&self) -> Result<Option<Number>, Error> {
        match self {
            Self::Initial(_, number) => Ok(number.clone()),
            Self::Found(section, encoded) => {
                let term = Term::new(encoded);
                let number = term.tagged_overwrite().unwrap_or(term).number();
                Ok(found(number, *section)?)
            }
            Self::Integer(value) => Ok(Some(Number::Int(*value))),
            Self::Binary(_) => Ok(None),
        }
    }

    fn into_owned(self) -> Held<'static> {
        match self {
            Self::Initial(place, number) => Held::Initial(place, number),
            Self::Found(section, encoded) => Held::Found(section, Cow::Owned(encoded.into_owned())),
            Self::Integer(value) => Held::Integer(value),
            Self::Binary(bytes) => Held::Binary(Cow::Owned(bytes.into_owned())),
        }
    }
}

/// A key by its encoding; where it was found does not tell it from the same one elsewhere.
#[derive(Clone, Debug)]
struct FieldKey<'c>(Cow<'c, [u8]>, Section);

impl PartialEq for FieldKey<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for FieldKey<'_> {}

impl Hash for FieldKey<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

/// A field of the state that a fold ends with.
pub struct Field {
    /// The encoding of its key.
    pub key: Vec<u8>,
    /// The section in which the key was found first.
    pub section: Section,
    /// Its value.
    pub value: Tagged<Held<'static>>,
}

type State<'c> = Fold<FieldKey<'c>, Held<'c>, Seeded>;

/// Folds the data of all events into a state, whose fields to begin with are given by the encodings of their
/// keys.
///
/// # Errors
/// [`Error`]; [`Error::TooMany`] for more than `most` fields, [`segment::Error::TooLarge`] for more than
/// [`MAX_PARTS`], or where a state holds more than [`MAX_BUILT`] bytes behind a segment.
pub fn folded(
    sources: &[Source],
    initial: impl IntoIterator<Item = (Vec<u8>, Tagged<Held<'static>>)>,
    most: usize,
) -> Result<Vec<Field>, Error> {
    let mut state = State::default();
    let mut size = 0;
    for (key, value) in initial {
        size += key.len();
        state.set(FieldKey(Cow::Owned(key), Section::Data), value);
    }
    for source in sources {
        size = folded_in(*source, &mut state, size, most)?;
        if size > MAX_BUILT {
            return Err(segment::Error::TooLarge.into());
        }
    }
    let fields = state.into_fields().into_iter();
    Ok(fields
        .map(|(key, value)| Field {
            key: key.0.into_owned(),
            section: key.1,
            value,
        })
        .collect())
}

/// What this segment changes is told apart from the state before it, and only that outlives the segment as a copy:
/// so a list takes no more time and memory than what is in it. How much the state held, and then holds, in bytes of
/// encodings, is counted on the way.
fn folded_in(
    source: Source,
    state: &mut State<'static>,
    mut size: usize,
    most: usize,
) -> Result<usize, Error> {
    let segment = source.open()?;
    let mut contents = segment.contents(Sections::default().with(Section::Data))?;
    let events = contents.events();
    let has_data = |event| {
        let payload = events.payload(Section::Data, event);
        payload.and_then(Term::versioned_map).is_some()
    };
    if !(0..events.count()).all(has_data) {
        contents = segment.contents(Sections::ALL)?;
    }
    let events = contents.events();
    let mut fold = Folding {
        before: state,
        now: State::default(),
        count: state.fields().len(),
    };
    for event in 0..events.count() {
        fold.event(&events, event)?;
        if fold.count > most {
            return Err(Error::TooMany);
        }
    }
    for (key, value) in fold.now.into_fields() {
        size += size_of_value(&value);
        match place(&*state, &key) {
            Some(place) => {
                let before = state.fields().get(place);
                size -= before.map_or(0, |(_, value)| size_of_value(value));
                state.set_at(place, owned(value));
            }
            None => {
                size += key.0.len();
                let key = FieldKey(Cow::Owned(key.0.into_owned()), key.1);
                state.set(key, owned(value));
            }
        }
    }
    Ok(size)
}

/// The bytes of the encoding that is kept of a value, if one is.
fn size_of_value(value: &Tagged<Held>) -> usize {
    match value {
        Tagged::Value(Held::Found(_, encoded)) => encoded.len(),
        _ => 0,
    }
}

/// Where a state that outlives a key has it.
fn place<'c>(state: &State<'c>, key: &FieldKey<'c>) -> Option<usize> {
    state.place(key)
}

fn owned(value: Tagged<Held>) -> Tagged<Held<'static>> {
    match value {
        Tagged::Sum(sum) => Tagged::Sum(sum),
        Tagged::Value(value) => Tagged::Value(value.into_owned()),
    }
}

/// The fold of a segment: the fields that came up in it, and the state that it goes on from.
struct Folding<'s, 'c> {
    before: &'s State<'c>,
    now: State<'c>,
    /// How many fields there are in both together.
    count: usize,
}

impl<'c> Folding<'_, 'c> {
    fn event(&mut self, events: &Events<'c>, event: usize) -> Result<(), Error> {
        let data = events.payload(Section::Data, event);
        if let Some(data) = data.and_then(Term::versioned_map) {
            return self.map(data, Section::Data);
        }
        if let Some(others) = events.payload(Section::Others, event) {
            let others = found(Term::versioned(others), Section::Others)?;
            self.map(others, Section::Others)?;
        }
        for (key, section) in segment::columns() {
            let value = match events.cell(section, event) {
                None => continue,
                Some(Cell::Integer(value)) => Held::Integer(value),
                Some(Cell::Binary(bytes)) => Held::Binary(Cow::Borrowed(bytes)),
                Some(Cell::Payload(payload)) => {
                    let term = found(Term::versioned(payload), section)?;
                    let value = found(term.encoded(), section)?;
                    self.field(0, key, value, section)?;
                    continue;
                }
            };
            let key = FieldKey(Cow::Borrowed(key), Section::Data);
            self.apply(0, key, Tagged::Value(value))?;
        }
        Ok(())
    }

    fn map(&mut self, map: Term<'c>, section: Section) -> Result<(), Error> {
        let Some(mut pairs) = found(map.pairs(), section)? else {
            return Ok(());
        };
        let mut guess = 0;
        while let Some([key, value]) = found(pairs.next_pair(), section)? {
            guess = self.field(guess, key, value, section)? + 1;
        }
        Ok(())
    }

    /// Events of one kind have the same fields in the same order, so the field behind that of the last key is a
    /// good guess. The place of this one is returned.
    fn field(
        &mut self,
        guess: usize,
        key: &'c [u8],
        bytes: &'c [u8],
        section: Section,
    ) -> Result<usize, Error> {
        let value = Term::new(bytes);
        let sum = match value.tagged_sum() {
            Some(sum) => found(sum.number(), section)?,
            None => {
                // A value is looked at as far as its head, which must be well-formed.
                if value.tagged_overwrite().is_none() {
                    found(value.kind(), section)?;
                }
                None
            }
        };
        let value = match sum {
            Some(sum) => Tagged::Sum(sum),
            None => Tagged::Value(Held::Found(section, Cow::Borrowed(bytes))),
        };
        self.apply(guess, FieldKey(Cow::Borrowed(key), section), value)
    }

    #[inline]
    fn apply(
        &mut self,
        guess: usize,
        key: FieldKey<'c>,
        value: Tagged<Held<'c>>,
    ) -> Result<usize, Error> {
        let (before, known) = (self.before, self.now.fields().len());
        let place = self
            .now
            .apply_near(before, guess, key, value, Held::counts)?;
        if place == known {
            self.count_new()?;
        }
        Ok(place)
    }

    #[cold]
    fn count_new(&mut self) -> Result<(), Error> {
        let last = self.now.fields().last();
        if last.is_some_and(|(key, _)| self.before.place(key).is_none()) {
            self.count += 1;
        }
        if self.count > MAX_PARTS {
            return Err(segment::Error::TooLarge.into());
        }
        Ok(())
    }
}

/// How much of an answer may be built from the encodings of payloads, on the scheduler where it is.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Nanoseconds.
    time: usize,
    /// Bytes of encodings; the terms take up to sixteen times as many.
    size: usize,
}

impl Budget {
    /// On a normal scheduler.
    pub const SHORT: Self = Self::new(400_000, MAX_BUILT);
    /// On a dirty one.
    pub const LONG: Self = Self::new(usize::MAX, MAX_BUILT);

    /// So many nanoseconds, and so many bytes.
    #[must_use]
    pub const fn new(time: usize, size: usize) -> Self {
        Self { time, size }
    }

    /// Takes off a term of so many bytes that is built.
    ///
    /// # Errors
    /// [`segment::Error::TooLarge`] for one that takes the sum above the limit, in both cases; else
    /// [`Error::TooMany`] where it takes too long.
    pub fn build(&mut self, size: usize) -> Result<(), Error> {
        let left = self.size.checked_sub(size);
        self.size = left.ok_or(segment::Error::TooLarge)?;
        // As measured, rounded up.
        let left = self.time.checked_sub(100 + 5 * size);
        self.time = left.ok_or(Error::TooMany)?;
        Ok(())
    }
}

/// What a projection finds of one field of one event.
pub enum Found<'c> {
    /// A term by its encoding, and the section it lies in.
    Term(Section, &'c [u8]),
    /// An integer of a column.
    Integer(i64),
    /// A binary of a column.
    Binary(&'c [u8]),
    /// Nothing.
    Missing,
}

/// Tells `visit` the fields of each event, event by event and in their order; then how many events there are.
///
/// # Errors
/// [`Error`], or what `visit` says.
pub fn projected<E: From<segment::Error>>(
    source: Source,
    paths: &[Path],
    mut visit: impl FnMut(usize, Found) -> Result<(), E>,
) -> Result<usize, E> {
    let paths: Paths = paths.iter().cloned().collect();
    let contents = source.contents(paths.sections())?;
    let mut fields = Fields::new(&paths, contents.events());
    let count = fields.events().count();
    if count.saturating_mul(1 + paths.count()) > MAX_PARTS {
        return Err(segment::Error::TooLarge.into());
    }
    for event in 0..count {
        fields.go_to(event);
        for place in 0..paths.count() {
            let value = match fields.get(place)? {
                None => Found::Missing,
                Some(Value::Integer(value)) => Found::Integer(value),
                Some(Value::Binary(bytes)) => Found::Binary(bytes),
                Some(Value::Term(section, term)) => {
                    Found::Term(section, found(term.encoded(), section)?)
                }
            };
            visit(event, value)?;
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::zstd;
    use std::time::{Duration, Instant};

    /// One section of zeros, in a frame: short as it is stored, and long once it is read.
    fn compressed(size: usize) -> Vec<u8> {
        let content = vec![0; size];
        let mut frame = vec![0; zstd::compress_bound(size)];
        let written = zstd::compress(&content, &mut frame, 3, true, None).unwrap_or_default();
        frame.truncate(written);
        let mut output = b"ESDS\x01\0\x01\0".to_vec();
        output.extend(((size / 8) as u32).to_le_bytes());
        output.extend([0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0]);
        for number in [64, frame.len(), size] {
            output.extend((number as u64).to_le_bytes());
        }
        output.extend(hash::xxhash3(&frame).to_le_bytes());
        output.extend(hash::xxhash3(&output).to_le_bytes());
        [output, frame].concat()
    }

    /// Whether a thread meets another one while it asks.
    fn is_shared_out(segments: &[Vec<u8>], threads: usize) -> bool {
        let source = |bytes| Source {
            bytes,
            dictionary: None,
        };
        let sources: Vec<_> = segments.iter().map(|bytes| source(bytes)).collect();
        let threads = NonZeroUsize::new(threads).unwrap_or(NonZeroUsize::MIN);
        let asking = AtomicUsize::new(0);
        let answers = each(&sources, threads, |_| {
            asking.fetch_add(1, atomic::Ordering::SeqCst);
            let wait = match threads.get() > 1 && are_large(&sources) {
                true => Duration::from_secs(60),
                false => Duration::ZERO,
            };
            let start = Instant::now();
            while asking.load(atomic::Ordering::SeqCst) < 2 && start.elapsed() < wait {
                thread::yield_now();
            }
            Ok(thread::current().id())
        });
        let ids: std::collections::HashSet<_> = answers.into_iter().flatten().collect();
        ids.len() > 1
    }

    #[test]
    fn compressed_segments_are_as_large_as_what_they_hold() {
        let [half, less] = [PARALLEL / 2, PARALLEL / 2 - 8].map(compressed);
        assert!(half.len() < PARALLEL / 100);
        assert!(is_shared_out(&[half.clone(), half.clone()], 2));
        assert!(!is_shared_out(&[half.clone(), less], 2));
        assert!(!is_shared_out(&[half.clone(), half], 1));
    }
}
