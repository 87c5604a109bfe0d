//! NIFs of the Erlang module `esdb_aggregate_nif`: groups of events that are maps.
//!
//! Events are not copied: fields are looked up where they lie, groups are told apart as terms, and only the
//! numbers leave Erlang. The wrappers have checked paths and questions and made them `{data | event, Keys}`.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash, Hasher};

use esdb_boundary::{number, term};
use esdb_core::aggregate::{Accumulator, Groups, Kind};
use esdb_core::hash::xxhash3_seeded;
use esdb_core::number::{Number, Overflow};
use rustler::{Atom, Decoder, Encoder, Env, Error, NifResult, Term, TermType, nif, types::tuple};

mod atoms {
    rustler::atoms! { avg, badarith, count, data, event, long, max, min, sum, undefined }
}

/// Events times fields that are looked at in a hundredth of a millisecond.
const FIELDS_A_PERCENT: usize = 200;
/// So many bytes of long integers are for a normal scheduler: a fifth of a millisecond, for each is copied twice
/// before it is added. Of long keys twice as many, which are only read.
const LONG_BYTES: usize = 256 << 10;

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
    match grouped(events, &path, &questions, Budget::normal()) {
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
    let (groups, _) = grouped(events, &path, &questions, Budget::dirty())?;
    Ok(answer(env, &groups)?)
}

/// How many bytes may still be looked at where one look is not enough.
struct Budget {
    left: usize,
    is_normal: bool,
}

impl Budget {
    fn normal() -> Self {
        Self {
            left: LONG_BYTES,
            is_normal: true,
        }
    }

    fn dirty() -> Self {
        Self {
            left: usize::MAX,
            is_normal: false,
        }
    }

    #[inline]
    fn take(&mut self, bytes: usize) -> Result<(), Stop> {
        self.left = self.left.checked_sub(bytes).ok_or(Stop::Long)?;
        Ok(())
    }

    /// What it takes to tell a key from others. How large a list, a tuple, a map or a long integer is nobody says
    /// before it has been walked.
    #[inline]
    fn take_key(&mut self, key: Term, content: Content) -> Result<(), Stop> {
        match content {
            Content::Short(..) => Ok(()),
            Content::Long(bytes) if self.is_normal => self.take(bytes.len() / 2),
            Content::Other if self.is_normal && !is_small(key) => Err(Stop::Long),
            _ => Ok(()),
        }
    }
}

/// Whether a term, which is no binary, is one word or a few.
fn is_small(term: Term) -> bool {
    match term.get_type() {
        TermType::Integer => term::int(term).is_some(),
        TermType::List => term.is_empty_list(),
        TermType::Tuple | TermType::Map | TermType::Fun | TermType::Binary => false,
        _ => true,
    }
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
        match self.keys.as_slice() {
            [key] => term::get(origin, *key),
            keys => keys
                .iter()
                .try_fold(origin, |map, key| term::get(map, *key)),
        }
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
///
/// Most keys are binaries, and short. To hash and to compare these here costs less than to have the virtual
/// machine do it.
#[derive(Clone, Copy)]
struct Key<'a> {
    term: Term<'a>,
    content: Content<'a>,
    hash: u64,
}

#[derive(Clone, Copy)]
enum Content<'a> {
    /// A binary of at most 16 bytes: its beginning and its end, which may overlap, and its size.
    Short(u64, u64, usize),
    Long(&'a [u8]),
    /// Any other term.
    Other,
}

impl<'a> Content<'a> {
    #[inline]
    fn of(term: Term<'a>) -> Self {
        match term::bytes(term) {
            None => Self::Other,
            Some(bytes) => Self::short(bytes).unwrap_or(Self::Long(bytes)),
        }
    }

    #[inline]
    fn short(bytes: &[u8]) -> Option<Self> {
        let (first, last) = match bytes.len() {
            8..=16 => (
                u64::from_ne_bytes(*bytes.first_chunk()?),
                u64::from_ne_bytes(*bytes.last_chunk()?),
            ),
            4..8 => (
                u32::from_ne_bytes(*bytes.first_chunk()?).into(),
                u32::from_ne_bytes(*bytes.last_chunk()?).into(),
            ),
            _ => return None,
        };
        Some(Self::Short(first, last, bytes.len()))
    }
}

impl<'a> Key<'a> {
    /// The salt is drawn anew for each call, so that nobody can choose keys that collide.
    #[inline]
    #[allow(clippy::cast_possible_truncation)] // where the rest is not wanted
    fn new(term: Term<'a>, content: Content<'a>, salt: (u64, u64)) -> Self {
        let hash = match content {
            Content::Short(first, last, size) => folded(
                first ^ salt.0,
                last ^ salt.1 ^ (size as u64).rotate_left(56),
            ),
            Content::Long(bytes) => xxhash3_seeded(bytes, salt.0),
            Content::Other => folded(term.hash_internal(salt.0 as u32).into(), GOLDEN),
        };
        Self {
            term,
            content,
            hash,
        }
    }
}

/// 2^64 by the golden ratio: Knuth, The Art of Computer Programming, volume 3, section 6.4.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// Both halves of the product.
#[inline]
#[allow(clippy::cast_possible_truncation)]
fn folded(left: u64, right: u64) -> u64 {
    let product = u128::from(left) * u128::from(right);
    product as u64 ^ (product >> 64) as u64
}

impl PartialEq for Key<'_> {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        match (self.content, other.content) {
            (Content::Short(a, b, size), Content::Short(c, d, others)) => {
                a == c && b == d && size == others
            }
            (Content::Long(bytes), Content::Long(others)) => bytes == others,
            (Content::Other, Content::Other) => self.hash == other.hash && self.term == other.term,
            _ => false,
        }
    }
}

impl Eq for Key<'_> {}

impl Hash for Key<'_> {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// A key is hashed when it is made: here nothing is left to do.
#[derive(Clone, Copy, Default)]
struct Ready(u64);

impl BuildHasher for Ready {
    type Hasher = Self;
    #[inline]
    fn build_hasher(&self) -> Self {
        *self
    }
}

impl Hasher for Ready {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64((*byte).into()));
    }

    #[inline]
    fn write_u64(&mut self, hash: u64) {
        self.0 ^= hash;
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

type Found<'a> = Groups<Key<'a>, Ready>;

fn salt() -> (u64, u64) {
    let random = RandomState::new();
    (random.hash_one(0_u8), random.hash_one(1_u8))
}

/// The groups, and how many events there were. What is no map is passed over.
fn grouped<'a>(
    events: Term<'a>,
    path: &Path<'a>,
    questions: &[Question<'a>],
    mut budget: Budget,
) -> Result<(Found<'a>, usize), Stop> {
    let env = events.get_env();
    let data_key = atoms::data().encode(env);
    let undefined = atoms::undefined().encode(env);
    let kinds = questions.iter().map(|question| question.kind);
    let mut groups = Found::new(kinds.collect());
    let salt = salt();
    let fields = fields(questions);
    let mut count = 0;
    let mut rest = events;
    while let Some((event, next)) = term::cell(rest) {
        rest = next;
        count += 1;
        let Some(data) = data_of(event, data_key) else {
            continue;
        };
        let value = path.find(event, data).unwrap_or(undefined);
        let content = Content::of(value);
        budget.take_key(value, content)?;
        let group = groups.place(Key::new(value, content, salt));
        let mut answers = groups.at(group);
        for (path, width) in &fields {
            let (of_field, others) = answers.split_at_mut_checked(*width).unwrap_or_default();
            answers = others;
            match path {
                None => add(of_field, None)?,
                Some(path) => match path.find(event, data) {
                    None => {}
                    Some(value) => add_value(of_field, value, &mut budget)?,
                },
            }
        }
    }
    if rest.is_empty_list() {
        Ok((groups, count))
    } else {
        Err(Stop::BadArg)
    }
}

/// The map under `data`, or else the event, if that is one.
#[inline]
fn data_of<'a>(event: Term<'a>, data_key: Term<'a>) -> Option<Term<'a>> {
    match term::get(event, data_key) {
        Some(data) if data.is_map() => Some(data),
        Some(_) => Some(event),
        None => event.is_map().then_some(event),
    }
}

/// The fields that are asked about, each with the number of questions in a row that are about it.
fn fields<'q, 'a>(questions: &'q [Question<'a>]) -> Vec<(Option<&'q Path<'a>>, usize)> {
    questions
        .chunk_by(|one, next| one.path == next.path)
        .filter_map(|same| Some((same.first()?.path.as_ref(), same.len())))
        .collect()
}

#[inline]
fn add(answers: &mut [Accumulator], number: Option<&Number>) -> Result<(), Overflow> {
    answers.iter_mut().try_for_each(|answer| answer.add(number))
}

#[inline]
fn add_value(answers: &mut [Accumulator], value: Term, budget: &mut Budget) -> Result<(), Stop> {
    if let Some(int) = term::int(value) {
        return Ok(add(answers, Some(&Number::Int(int)))?);
    }
    let number = number_of(value);
    if let Some(Number::Big(big)) = &number {
        budget.take(big.bytes())?;
    }
    Ok(add(answers, number.as_ref())?)
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

fn load(_env: Env, info: Term) -> bool {
    esdb_boundary::same_version(info)
}

rustler::init!("esdb_aggregate_nif", load = load);
