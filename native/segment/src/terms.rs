//! Questions from terms, and answers as terms.

use esdb_core::aggregate::{Kind, Tagged};
use esdb_core::archive;
use esdb_core::etf;
use esdb_core::number;
use esdb_core::predicate::{self, Predicate};
use esdb_core::query::{self, Aggregate, Budget, Found, Held, Source};
use esdb_core::segment::{self, Lazy, Path, Section};
use rustler::{
    Atom, Binary, Decoder, Encoder, Env, NewBinary, NifResult, OwnedBinary, Term, types::tuple,
};
use std::collections::{HashMap, hash_map::Entry};
use std::sync::Arc;

mod atoms {
    rustler::atoms! {
        none, infinity, undefined, sum, min, max, overwrite, existing, create,
        badarith, too_many, corrupt, unsupported_version, dictionary_mismatch, invalid_dictionary, no_memory, too_large,
        header, versions, positions, epoch_us, event_ids, types, streams, data, metadata, others,
    }
}

/// Up to this size a binary goes onto the heap of the process.
const SMALL: usize = 64 << 10;

/// Why there is no answer. (rustler makes `{error, Fail}` of it.)
pub struct Fail(query::Error);

impl From<query::Error> for Fail {
    fn from(error: query::Error) -> Self {
        Self(error)
    }
}

impl From<segment::Error> for Fail {
    fn from(error: segment::Error) -> Self {
        Self(error.into())
    }
}

impl From<archive::Error> for Fail {
    fn from(error: archive::Error) -> Self {
        segment::Error::Archive(error).into()
    }
}

impl Encoder for Fail {
    fn encode<'b>(&self, env: Env<'b>) -> Term<'b> {
        match self.0 {
            query::Error::Overflow => atoms::badarith().encode(env),
            query::Error::TooMany => atoms::too_many().encode(env),
            query::Error::Segment(error) => match error {
                segment::Error::CorruptHeader => (atoms::corrupt(), atoms::header()).encode(env),
                segment::Error::Corrupt(section) => (atoms::corrupt(), name(section)).encode(env),
                segment::Error::UnsupportedVersion(version) => {
                    (atoms::unsupported_version(), version).encode(env)
                }
                segment::Error::Archive(archive::Error::DictionaryMismatch(id)) => {
                    (atoms::dictionary_mismatch(), id).encode(env)
                }
                segment::Error::Archive(archive::Error::InvalidDictionary) => {
                    atoms::invalid_dictionary().encode(env)
                }
                segment::Error::Archive(_) => atoms::no_memory().encode(env),
                segment::Error::TooLarge => atoms::too_large().encode(env),
            },
        }
    }
}

fn name(section: Section) -> Atom {
    match section {
        Section::Versions => atoms::versions(),
        Section::Positions => atoms::positions(),
        Section::EpochUs => atoms::epoch_us(),
        Section::EventIds => atoms::event_ids(),
        Section::Types => atoms::types(),
        Section::Streams => atoms::streams(),
        Section::Data => atoms::data(),
        Section::Metadata => atoms::metadata(),
        Section::Others => atoms::others(),
    }
}

/// `{Segment, none | Dictionary}`, a dictionary being its bytes or a handle, of which the bytes count: the
/// reference in it belongs to another library.
pub struct SourceArg<'a> {
    bytes: Binary<'a>,
    dictionary: Option<Binary<'a>>,
}

impl<'a> Decoder<'a> for SourceArg<'a> {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        let (bytes, dictionary): (Binary, Term) = term.decode()?;
        Ok(Self {
            bytes,
            dictionary: dictionary_bytes(dictionary)?,
        })
    }
}

fn dictionary_bytes(term: Term) -> NifResult<Option<Binary>> {
    if atoms::none() == term {
        return Ok(None);
    }
    if term.is_binary() {
        return term.decode().map(Some);
    }
    match tuple::get_tuple(term)?[..] {
        [_tag, bytes, _reference] => bytes.decode().map(Some),
        _ => Err(rustler::Error::BadArg),
    }
}

impl SourceArg<'_> {
    /// Asks this segment.
    pub fn with<T>(&self, ask: impl FnOnce(Source) -> T) -> T {
        let dictionary = self.dictionary.as_deref().map(Lazy::new);
        ask(Source {
            bytes: &self.bytes,
            dictionary: dictionary.as_ref(),
        })
    }
}

/// Asks these segments. Those that share a dictionary share what is prepared of it.
pub fn with<T>(sources: &[SourceArg], ask: impl FnOnce(&[Source]) -> T) -> T {
    let given = sources
        .iter()
        .filter_map(|source| source.dictionary.as_deref());
    let dictionaries: HashMap<_, _> = given.map(|bytes| (lies(bytes), Lazy::new(bytes))).collect();
    let sources: Vec<_> = sources
        .iter()
        .map(|source| {
            let dictionary = source.dictionary.as_deref();
            Source {
                bytes: &source.bytes,
                dictionary: dictionary.and_then(|bytes| dictionaries.get(&lies(bytes))),
            }
        })
        .collect();
    ask(&sources)
}

/// Where in memory these bytes are.
fn lies(bytes: &[u8]) -> (usize, usize) {
    (bytes.as_ptr().addr(), bytes.len())
}

fn canonical<'a, T>(term: Term<'a>, decode: impl FnOnce(&[u8]) -> Option<T>) -> NifResult<T> {
    let bytes: Binary = term.decode()?;
    decode(&bytes).ok_or(rustler::Error::BadArg)
}

/// A predicate in its canonical form.
pub struct PredicateArg(pub Arc<Predicate>);

impl<'a> Decoder<'a> for PredicateArg {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        canonical(term, predicate::prepared).map(Self)
    }
}

/// A path in its canonical form.
pub struct PathArg(pub Path);

impl<'a> Decoder<'a> for PathArg {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        canonical(term, Path::decode).map(Self)
    }
}

/// Aggregates in their canonical form.
pub struct Asked(pub Vec<Aggregate>);

impl<'a> Decoder<'a> for Asked {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        canonical(term, Aggregate::decode).map(Self)
    }
}

/// `pos_integer() | infinity`.
pub struct Limit(pub Option<usize>);

impl<'a> Decoder<'a> for Limit {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        match atoms::infinity() == term {
            true => Ok(Self(None)),
            // An integer that does not fit limits nothing.
            false if term.is_integer() => Ok(Self(term.decode().ok())),
            false => Err(rustler::Error::BadArg),
        }
    }
}

/// `sum | min | max`.
pub struct Question(pub Kind);

impl<'a> Decoder<'a> for Question {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        let kinds = [
            (atoms::sum(), Kind::Sum),
            (atoms::min(), Kind::Min),
            (atoms::max(), Kind::Max),
        ];
        let kind = kinds.into_iter().find(|(name, _)| *name == term);
        let (_, kind) = kind.ok_or(rustler::Error::BadArg)?;
        Ok(Self(kind))
    }
}

/// `existing | create`.
#[derive(Clone, Copy, PartialEq)]
pub enum Atoms {
    /// Only those that there are.
    Existing,
    /// Any.
    Create,
}

impl<'a> Decoder<'a> for Atoms {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        if atoms::existing() == term {
            Ok(Self::Existing)
        } else if atoms::create() == term {
            Ok(Self::Create)
        } else {
            Err(rustler::Error::BadArg)
        }
    }
}

/// A field of the state that a fold begins with: `{Key, Value}`, the key by its encoding.
pub struct Initial<'a> {
    key: Binary<'a>,
    value: Term<'a>,
}

impl<'a> Decoder<'a> for Initial<'a> {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        let (key, value) = term.decode()?;
        Ok(Self { key, value })
    }
}

impl Initial<'_> {
    /// The field as a fold takes it.
    pub fn at(&self, place: usize) -> (Vec<u8>, Tagged<Held<'static>>) {
        let value = Held::Initial(place, self.counts());
        (self.key.to_vec(), Tagged::Value(value))
    }

    /// A number, or that of a `{sum | overwrite, Number}`.
    fn counts(&self) -> Option<number::Number> {
        if self.value.is_number() {
            return number(self.value);
        }
        let (tag, value): (Term, Term) = self.value.decode().ok()?;
        let is_tagged = atoms::sum() == tag || atoms::overwrite() == tag;
        (is_tagged && value.is_number()).then(|| number(value))?
    }
}

fn number(term: Term) -> Option<number::Number> {
    let encoded = term.to_binary();
    etf::Term::versioned(&encoded).ok()?.number().ok()?
}

/// A binary of an answer.
pub struct Packed<'a>(Binary<'a>);

impl<'a> Packed<'a> {
    /// Indices of events, 32 bits each, little-endian.
    pub fn indices(env: Env<'a>, indices: &[u32]) -> Result<Self, Fail> {
        let bytes: Vec<u8> = indices
            .iter()
            .flat_map(|index| index.to_le_bytes())
            .collect();
        Self::bytes(env, &bytes)
    }

    /// A copy of these bytes.
    pub fn bytes(env: Env<'a>, bytes: &[u8]) -> Result<Self, Fail> {
        if bytes.len() <= SMALL {
            let mut binary = NewBinary::new(env, bytes.len());
            binary.as_mut_slice().copy_from_slice(bytes);
            return Ok(Self(binary.into()));
        }
        let mut binary = OwnedBinary::new(bytes.len()).ok_or(archive::Error::NoMemory)?;
        binary.as_mut_slice().copy_from_slice(bytes);
        Ok(Self(binary.release(env)))
    }
}

impl Encoder for Packed<'_> {
    fn encode<'b>(&self, env: Env<'b>) -> Term<'b> {
        self.0.to_term(env)
    }
}

/// A number, or `undefined`.
pub struct Number(pub Option<number::Number>);

impl Encoder for Number {
    fn encode<'b>(&self, env: Env<'b>) -> Term<'b> {
        match &self.0 {
            None => atoms::undefined().encode(env),
            Some(number::Number::Int(value)) => value.encode(env),
            Some(number::Number::Float(value)) => value.encode(env),
            // It is never longer than what the virtual machine takes.
            Some(number::Number::Big(big)) => {
                let (is_negative, magnitude) = big.to_le_bytes();
                let mut encoded = vec![etf::VERSION];
                etf::write::big(&mut encoded, is_negative, &magnitude);
                env.binary_to_term(&encoded)
                    .map_or_else(|| atoms::undefined().encode(env), |(term, _)| term)
            }
        }
    }
}

/// How much an answer may have on the scheduler that it is built on.
#[derive(Clone, Copy)]
pub struct Bounds {
    /// Fields of a map.
    pub fields: usize,
    /// Terms from their encodings.
    built: Budget,
}

impl Bounds {
    /// On a normal one.
    pub const SHORT: Self = Self {
        fields: 512,
        built: Budget::SHORT,
    };
    /// On a dirty one.
    pub const LONG: Self = Self {
        fields: usize::MAX,
        built: Budget::LONG,
    };
}

/// The map of an answer, put together in the order of its keys' first appearance.
pub struct Terms<'a> {
    env: Env<'a>,
    map: Term<'a>,
    bounds: Bounds,
}

impl<'a> Terms<'a> {
    /// An empty map.
    pub fn new(env: Env<'a>, bounds: Bounds) -> Self {
        let map = Term::map_new(env);
        Self { env, map, bounds }
    }

    /// Adds a key by its encoding, then its value. Two keys that are different bytes and the same term are
    /// nobody's encoding.
    pub fn put(
        &mut self,
        key: &[u8],
        section: Section,
        value: impl FnOnce(&mut Self) -> Result<Term<'a>, Fail>,
    ) -> Result<(), Fail> {
        self.bounds.built.build(key.len())?;
        let key = built(self.env, Atoms::Existing, section, key)?;
        let corrupt = segment::Error::Corrupt(section);
        if self.map.map_get(key).is_ok() {
            return Err(corrupt.into());
        }
        let value = value(self)?;
        self.map = self.map.map_put(key, value).map_err(|_| corrupt)?;
        Ok(())
    }

    /// A number, or `undefined`.
    pub fn number(&self, number: Option<&number::Number>) -> Result<Term<'a>, Fail> {
        Ok(Number(number.cloned()).encode(self.env))
    }

    /// A list.
    pub fn list(&self, terms: Vec<Term<'a>>) -> Result<Term<'a>, Fail> {
        Ok(terms.encode(self.env))
    }

    /// A field of a fold.
    pub fn field(
        &mut self,
        value: &Tagged<Held>,
        initial: &[Initial<'a>],
    ) -> Result<Term<'a>, Fail> {
        match value {
            Tagged::Sum(sum) => {
                let sum = Number(Some(sum.clone())).encode(self.env);
                Ok((atoms::sum(), sum).encode(self.env))
            }
            Tagged::Value(Held::Initial(place, _)) => {
                let field = initial.get(*place).map(|field| field.value);
                Ok(field.unwrap_or_else(|| atoms::undefined().encode(self.env)))
            }
            Tagged::Value(Held::Integer(value)) => Ok(value.encode(self.env)),
            Tagged::Value(Held::Binary(bytes)) => {
                Ok(Packed::bytes(self.env, bytes)?.encode(self.env))
            }
            Tagged::Value(Held::Found(section, encoded)) => {
                self.bounds.built.build(encoded.len())?;
                built(self.env, Atoms::Existing, *section, encoded)
            }
        }
    }

    /// The map.
    pub fn finish(self) -> Term<'a> {
        self.map
    }
}

/// The term of an encoding without its version byte.
fn built<'a>(
    env: Env<'a>,
    atoms: Atoms,
    section: Section,
    encoded: &[u8],
) -> Result<Term<'a>, Fail> {
    let mut whole = Vec::with_capacity(encoded.len() + 1);
    whole.push(etf::VERSION);
    whole.extend(encoded);
    let term = match atoms {
        Atoms::Existing => env.binary_to_term(&whole),
        // SAFETY: the virtual machine checks the encoding all the same; what the caller vouches for are the
        // atoms that come to be.
        Atoms::Create => unsafe { env.binary_to_term_trusted(&whole) },
    };
    match term {
        Some((term, size)) if size == whole.len() => Ok(term),
        _ => Err(segment::Error::Corrupt(section).into()),
    }
}

/// The rows of a projection.
pub struct Rows<'a> {
    env: Env<'a>,
    atoms: Atoms,
    width: usize,
    values: Vec<Term<'a>>,
    /// Names that are long, by where they lie: many events have the same one.
    names: HashMap<(usize, usize), Term<'a>>,
    bounds: Bounds,
}

/// Above this size a name is copied once only.
const LONG_NAME: usize = 64;

impl<'a> Rows<'a> {
    /// No rows, of so many values each.
    pub fn new(env: Env<'a>, atoms: Atoms, width: usize, bounds: Bounds) -> Self {
        Self {
            bounds,
            env,
            atoms,
            width,
            values: Vec::new(),
            names: HashMap::new(),
        }
    }

    /// Adds the next value.
    pub fn put(&mut self, found: &Found) -> Result<(), Fail> {
        let value = match found {
            Found::Missing => atoms::undefined().encode(self.env),
            Found::Integer(value) => value.encode(self.env),
            Found::Binary(bytes) => self.binary(bytes)?,
            Found::Term(section, encoded) => {
                self.bounds.built.build(encoded.len())?;
                built(self.env, self.atoms, *section, encoded)?
            }
        };
        self.values.push(value);
        Ok(())
    }

    fn binary(&mut self, bytes: &[u8]) -> Result<Term<'a>, Fail> {
        let copy = || Ok(Packed::bytes(self.env, bytes)?.encode(self.env));
        if bytes.len() <= LONG_NAME {
            return copy();
        }
        match self.names.entry(lies(bytes)) {
            Entry::Occupied(name) => Ok(*name.get()),
            Entry::Vacant(place) => Ok(*place.insert(copy()?)),
        }
    }

    /// That many rows as a list.
    pub fn finish(self, count: usize) -> Result<Term<'a>, Fail> {
        let rows: Vec<_> = match self.width {
            0 => vec![Vec::<Term>::new().encode(self.env); count],
            width => self
                .values
                .chunks(width)
                .map(|row| row.encode(self.env))
                .collect(),
        };
        Ok(rows.encode(self.env))
    }
}
