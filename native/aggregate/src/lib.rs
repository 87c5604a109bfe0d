//! NIFs of the Erlang module `esdb_aggregate_nif`: groups of events that are maps.
//!
//! Events are not copied: fields are looked up where they lie, groups are told apart as terms, and only the
//! numbers leave Erlang. The wrappers have checked paths and questions and made them `{data | event, Keys}`.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash, Hasher};

use esdb_boundary::number;
use esdb_core::aggregate::{Groups, Kind};
use esdb_core::number::{Number, Overflow};
use rustler::{Atom, Decoder, Encoder, Env, Error, NifResult, Term, TermType, nif, types::tuple};

mod atoms {
    rustler::atoms! { avg, badarith, count, data, event, long, max, min, sum, undefined }
}

/// Events times fields that are looked at in a hundredth of a millisecond.
const FIELDS_A_PERCENT: usize = 200;
/// Integers so many bytes long take time of their own: not on a normal scheduler.
const LONG_BYTES: usize = 1024;

#[nif]
fn implementation() -> Atom {
    esdb_boundary::implementation()
}

#[nif]
fn grouped_n<'a>(
    env: Env<'a>,
    events: Term<'a>,
    path: Path<'a>,
    questions: Vec<Question<'a>>,
) -> NifResult<Term<'a>> {
    match grouped(events, &path, &questions, Place::Normal) {
        Err(Stop::Long) => Ok(atoms::long().encode(env)),
        Err(stop) => Err(stop.into()),
        Ok((groups, events)) => {
            esdb_boundary::charge(env, events * (1 + questions.len()), FIELDS_A_PERCENT);
            answer(env, &groups).map_err(Error::from)
        }
    }
}

#[nif(schedule = "DirtyCpu", name = "grouped_d")]
fn grouped_dirty<'a>(
    env: Env<'a>,
    events: Term<'a>,
    path: Path<'a>,
    questions: Vec<Question<'a>>,
) -> NifResult<Term<'a>> {
    let (groups, _) = grouped(events, &path, &questions, Place::Dirty)?;
    Ok(answer(env, &groups)?)
}

/// The scheduler that runs this.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Normal,
    Dirty,
}

/// Why there is no answer.
enum Stop {
    /// The list of events has no end.
    BadArg,
    /// A sum that is no number.
    Overflow,
    /// More work than a normal scheduler should be kept with.
    Long,
}

impl From<Overflow> for Stop {
    fn from(_: Overflow) -> Self {
        Self::Overflow
    }
}

impl From<Stop> for Error {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Overflow => Self::RaiseTerm(Box::new(atoms::badarith())),
            Stop::BadArg | Stop::Long => Self::BadArg,
        }
    }
}

/// Where a field lies: `{data, Keys}` or `{event, Keys}`.
#[derive(PartialEq)]
struct Path<'a> {
    in_data: bool,
    keys: Vec<Term<'a>>,
}

impl<'a> Decoder<'a> for Path<'a> {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        let (origin, keys): (Atom, Vec<Term>) = term.decode()?;
        if origin != atoms::data() && origin != atoms::event() {
            return Err(Error::BadArg);
        }
        let in_data = origin == atoms::data();
        Ok(Self { in_data, keys })
    }
}

impl<'a> Path<'a> {
    /// The value in an event, whose data is given too.
    #[inline]
    fn find(&self, event: Term<'a>, data: Term<'a>) -> Option<Term<'a>> {
        let origin = if self.in_data { data } else { event };
        // What is no map has no fields.
        self.keys
            .iter()
            .try_fold(origin, |map, key| map.map_get(*key).ok())
    }
}

/// `count`, or `{Kind, Path}`.
struct Question<'a> {
    kind: Kind,
    path: Option<Path<'a>>,
}

impl<'a> Decoder<'a> for Question<'a> {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        let kinds = [
            (atoms::sum(), Kind::Sum),
            (atoms::min(), Kind::Min),
            (atoms::max(), Kind::Max),
            (atoms::avg(), Kind::Avg),
        ];
        if atoms::count() == term {
            let kind = Kind::Count;
            return Ok(Self { kind, path: None });
        }
        let (name, path): (Atom, Path) = term.decode()?;
        let known = kinds.into_iter().find(|(known, _)| *known == name);
        let (_, kind) = known.ok_or(Error::BadArg)?;
        Ok(Self {
            kind,
            path: Some(path),
        })
    }
}

/// A term as the key of a group: the same where Erlang's `=:=` says so.
#[derive(Clone, Copy)]
struct Key<'a> {
    term: Term<'a>,
    hash: u32,
}

impl PartialEq for Key<'_> {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.term == other.term
    }
}

impl Eq for Key<'_> {}

impl Hash for Key<'_> {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u32(self.hash);
    }
}

/// The virtual machine has hashed the key, with a salt that nobody can know; what is left is to spread the 32
/// bits over the 64 of which the table uses both ends.
#[derive(Clone, Copy, Default)]
struct Spread(u64);

impl BuildHasher for Spread {
    type Hasher = Self;
    #[inline]
    fn build_hasher(&self) -> Self {
        *self
    }
}

impl Hasher for Spread {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32((*byte).into()));
    }

    #[inline]
    fn write_u32(&mut self, hash: u32) {
        // 2^64 by the golden ratio: Knuth, The Art of Computer Programming, volume 3, section 6.4.
        self.0 = (self.0 ^ u64::from(hash)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

type Found<'a> = Groups<Key<'a>, Spread>;

/// The groups, and how many events there were. What is no map is passed over.
fn grouped<'a>(
    events: Term<'a>,
    path: &Path<'a>,
    questions: &[Question<'a>],
    place: Place,
) -> Result<(Found<'a>, usize), Stop> {
    let env = events.get_env();
    let data_key = atoms::data().encode(env);
    let undefined = atoms::undefined().encode(env);
    let salt = salt();
    let mut groups = Found::new(questions.iter().map(|question| question.kind).collect());
    let questions = with_repetitions(questions);
    let mut count = 0;
    let mut rest = events;
    while let Ok((event, next)) = rest.list_get_cell() {
        rest = next;
        count += 1;
        if !event.is_map() {
            continue;
        }
        let data = data_of(event, data_key);
        let term = path.find(event, data).unwrap_or(undefined);
        let hash = term.hash_internal(salt);
        let group = groups.place(Key { term, hash });
        let mut number = None;
        for (answer, (question, again)) in groups.at(group).iter_mut().zip(&questions) {
            if let (Some(path), false) = (&question.path, again) {
                number = path.find(event, data).and_then(number_of);
                refuse_long(number.as_ref(), place)?;
            }
            answer.add(number.as_ref())?;
        }
    }
    if rest.is_empty_list() {
        Ok((groups, count))
    } else {
        Err(Stop::BadArg)
    }
}

/// The map under `data`, or else the event.
#[inline]
fn data_of<'a>(event: Term<'a>, data_key: Term<'a>) -> Term<'a> {
    match event.map_get(data_key) {
        Ok(data) if data.is_map() => data,
        _ => event,
    }
}

/// Each question, and whether it is about the same field as the one before it.
fn with_repetitions<'q, 'a>(questions: &'q [Question<'a>]) -> Vec<(&'q Question<'a>, bool)> {
    let mut before = None;
    let mut judged = Vec::with_capacity(questions.len());
    for question in questions {
        let path = question.path.as_ref();
        judged.push((question, path.is_some() && path == before));
        before = path;
    }
    judged
}

#[inline]
fn refuse_long(number: Option<&Number>, place: Place) -> Result<(), Stop> {
    match number {
        Some(Number::Big(big)) if place == Place::Normal && big.bytes() > LONG_BYTES => {
            Err(Stop::Long)
        }
        _ => Ok(()),
    }
}

/// A number, or that of `{sum, Number}`.
#[inline]
fn number_of(term: Term) -> Option<Number> {
    if term.get_type() != TermType::Tuple {
        return number::decode(term);
    }
    match tuple::get_tuple(term).ok()?.as_slice() {
        [tag, term] if atoms::sum() == *tag => number::decode(*term),
        _ => None,
    }
}

/// `#{Key => [Answer]}`.
fn answer<'a>(env: Env<'a>, groups: &Found<'a>) -> Result<Term<'a>, Stop> {
    let mut keys = Vec::with_capacity(groups.len());
    let mut values = Vec::with_capacity(groups.len());
    for (key, answers) in groups.iter() {
        let mut terms = Vec::with_capacity(answers.len());
        for answer in answers {
            terms.push(match answer.result()? {
                Some(number) => number::encode(env, &number).ok_or(Stop::Overflow)?,
                None => atoms::undefined().encode(env),
            });
        }
        keys.push(key.term);
        values.push(terms.encode(env));
    }
    Term::map_from_term_arrays(env, &keys, &values).map_err(|_| Stop::BadArg)
}

/// Drawn anew for each call.
#[allow(clippy::cast_possible_truncation)]
fn salt() -> u32 {
    RandomState::new().hash_one(0_u8) as u32
}

fn load(_env: Env, info: Term) -> bool {
    esdb_boundary::same_version(info)
}

rustler::init!("esdb_aggregate_nif", load = load);
