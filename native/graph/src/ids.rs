//! The ids of a graph: terms of the caller, which stay on the caller's heap.

use std::cell::Cell;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::OnceLock;

use esdb_core::hash::xxhash3_seeded;
use rustler::types::map::MapIterator;
use rustler::wrapper::{NIF_TERM, list, tuple};
use rustler::{Binary, Env, Error, NifResult, Term, TermType};

/// How many ids a chunk of a handle has, all but the last; the same in `esdb_graph_erl`.
pub const CHUNK: usize = 1024;

/// The ids that a handle brings along, as a tuple of tuples, and those that come after them in this call.
pub struct Ids<'a> {
    env: Env<'a>,
    chunks: &'a [NIF_TERM],
    kept: usize,
    fresh: Vec<Term<'a>>,
}

impl<'a> Ids<'a> {
    /// No ids yet.
    pub const fn none(env: Env<'a>) -> Self {
        Self {
            env,
            chunks: &[],
            kept: 0,
            fresh: Vec::new(),
        }
    }

    /// Those of a handle. Looks at the size of the last chunk alone: what is wrong with another one comes out
    /// as `badarg` when it is used.
    pub fn of_handle(chunks: Term<'a>) -> NifResult<Self> {
        let env = chunks.get_env();
        let chunks = elements(chunks)?;
        let kept = match chunks {
            [] => 0,
            [full @ .., last] => full.len() * CHUNK + elements(term(env, *last))?.len(),
        };
        Ok(Self {
            env,
            chunks,
            kept,
            fresh: Vec::new(),
        })
    }

    /// All ids of a handle that nobody vouches for.
    pub fn of_unknown_handle(chunks: Term<'a>) -> NifResult<Vec<Term<'a>>> {
        let env = chunks.get_env();
        let chunks = elements(chunks)?;
        let mut ids = Vec::with_capacity(chunks.len() * CHUNK);
        for (chunk, left) in chunks.iter().zip((0..chunks.len()).rev()) {
            let chunk = elements(term(env, *chunk))?;
            let is_right = chunk.len() == CHUNK || (left == 0 && !chunk.is_empty());
            if !is_right || chunk.len() > CHUNK {
                return Err(Error::BadArg);
            }
            ids.extend(chunk.iter().map(|id| term(env, *id)));
        }
        Ok(ids)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.kept + self.fresh.len()
    }

    /// Whether a handle of no ids brought these: one without chunks, which are never empty.
    pub const fn has_no_chunks(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Adds one.
    pub fn push(&mut self, id: Term<'a>) {
        self.fresh.push(id);
    }

    /// Those that came after those of the handle.
    pub fn fresh(&self) -> &[Term<'a>] {
        &self.fresh
    }

    /// The id of this index.
    #[inline]
    pub fn get(&self, index: u32) -> Option<Term<'a>> {
        let index = index as usize;
        if index >= self.kept {
            return self.fresh.get(index - self.kept).copied();
        }
        let chunk = elements(term(self.env, *self.chunks.get(index / CHUNK)?)).ok()?;
        chunk.get(index % CHUNK).map(|id| term(self.env, *id))
    }

    /// Whether this is the id of this index, exactly (`=:=`).
    #[inline]
    pub fn is(&self, index: u32, id: Term<'a>) -> bool {
        let known = self.get(index);
        known.is_some_and(|known| known.as_c_arg() == id.as_c_arg() || known == id)
    }

    /// The same for an id that was not hashed, so that nobody has paid for reading it.
    #[inline]
    pub fn is_guessed(&self, index: u32, id: Term<'a>, hasher: &Hasher) -> bool {
        self.get(index).is_some_and(|known| {
            known.as_c_arg() == id.as_c_arg() || (hasher.affords(id) && known == id)
        })
    }

    /// A list of the ids of these indices.
    pub fn list(&self, indices: impl IntoIterator<Item = u32>) -> NifResult<Term<'a>> {
        let ids = indices.into_iter().map(|index| self.get(index));
        let ids: Option<Vec<NIF_TERM>> = ids.map(|id| id.map(|id| id.as_c_arg())).collect();
        let ids = ids.ok_or(Error::BadArg)?;
        // SAFETY: all of them are terms of this environment, and what is made of them is one too.
        Ok(unsafe { Term::new(self.env, list::make_list(self.env.as_c_arg(), &ids)) })
    }
}

/// Hashes ids: salted, so that nobody can choose ids of equal hashes. What ids mostly are is hashed here, which
/// is quicker than the runtime's own hash.
pub struct Hasher {
    salt: u32,
    /// What the last id was is what the next one is tried as first.
    in_binaries: Cell<bool>,
    /// Whether what it reads is limited.
    is_short: bool,
    /// Bytes that may be read.
    left: Cell<usize>,
}

/// Bytes of ids that are read on a normal scheduler: some 0.1 ms if they are those of binaries.
const SHORT: usize = 1 << 20;

/// The bytes that an element of a list, a tuple or a map counts as: to find and hash one takes so much longer.
const ELEMENT: usize = 32;

/// 2^1024 - 1, and the same below zero, as external terms: integers beyond these may be of any size.
const LARGE: [u8; 132] = limit(0);
const LARGE_BELOW_ZERO: [u8; 132] = limit(1);

const fn limit(sign: u8) -> [u8; 132] {
    let mut limit = [255; 132];
    limit[0] = 131;
    limit[1] = 110;
    limit[2] = 128;
    limit[3] = sign;
    limit
}

impl Hasher {
    /// One that reads as much as there is.
    pub fn endless() -> Self {
        Self::new(false, usize::MAX)
    }

    /// One that stops when a normal scheduler should not be kept busy any longer.
    pub fn short() -> Self {
        Self::new(true, SHORT)
    }

    fn new(is_short: bool, left: usize) -> Self {
        Self {
            salt: salt(),
            in_binaries: Cell::new(true),
            is_short,
            left: Cell::new(left),
        }
    }

    /// Whether it has stopped: what it answered last means nothing.
    pub fn has_stopped(&self) -> bool {
        self.left.get() == 0
    }

    /// The hash of an id.
    #[inline]
    pub fn hash(&self, id: Term) -> u32 {
        if !self.in_binaries.get() {
            if let Ok(number) = id.decode() {
                return self.of_number(number);
            }
        }
        if let Ok(bytes) = id.decode::<Binary>() {
            self.in_binaries.set(true);
            return self.of_bytes(&bytes);
        }
        if let Ok(number) = id.decode() {
            self.in_binaries.set(false);
            return self.of_number(number);
        }
        match self.affords(id) {
            true => id.hash_internal(self.salt),
            false => 0,
        }
    }

    /// Whether all of a term may be read, by hashing or comparing it; it is charged for that.
    ///
    /// The size of a term that is neither small nor a binary is not known before it is walked through, which
    /// ends as soon as it is too large.
    pub fn affords(&self, id: Term) -> bool {
        if !self.is_short {
            return true;
        }
        let mut open = Vec::new();
        let mut next = Some(id);
        while let Some(term) = next {
            if !self.opens(term, &mut open) {
                self.left.set(0);
                return false;
            }
            next = open.pop();
        }
        !self.has_stopped()
    }

    /// Charges for a term without its elements, and puts these to those that are open. False if its size cannot
    /// be known, or is too much.
    fn opens<'a>(&self, term: Term<'a>, open: &mut Vec<Term<'a>>) -> bool {
        match term.get_type() {
            TermType::Binary => term
                .decode::<Binary>()
                .is_ok_and(|bytes| self.spends(bytes.len())),
            TermType::Integer => term.decode::<i64>().is_ok() || is_limited(term),
            TermType::Tuple => elements(term).is_ok_and(|parts| {
                let is_in_time = self.spends(parts.len().saturating_mul(ELEMENT));
                if is_in_time {
                    open.extend(parts.iter().map(|part| self::term(term.get_env(), *part)));
                }
                is_in_time
            }),
            TermType::List => match term.list_get_cell() {
                Ok((head, tail)) => {
                    open.extend([tail, head]);
                    self.spends(ELEMENT)
                }
                Err(_) => true,
            },
            TermType::Map => {
                let size = term.map_size().unwrap_or(usize::MAX);
                let is_in_time = self.spends(size.saturating_mul(2 * ELEMENT));
                if let (true, Some(pairs)) = (is_in_time, MapIterator::new(term)) {
                    open.extend(pairs.flat_map(|(key, value)| [key, value]));
                }
                is_in_time
            }
            TermType::Fun | TermType::Unknown => false,
            TermType::Atom | TermType::Float | TermType::Pid | TermType::Port | TermType::Ref => {
                true
            }
        }
    }

    /// Whether there is something left after so many bytes.
    #[inline]
    fn spends(&self, bytes: usize) -> bool {
        let left = self.left.get().saturating_sub(bytes);
        self.left.set(left);
        left > 0
    }

    #[inline]
    fn of_number(&self, number: i64) -> u32 {
        let wide = u128::from(number as u64 ^ u64::from(self.salt)) * 0x9E37_79B9_7F4A_7C15;
        ((wide >> 64) as u64 ^ wide as u64) as u32
    }

    #[inline]
    fn of_bytes(&self, bytes: &[u8]) -> u32 {
        match self.spends(bytes.len()) {
            true => xxhash3_seeded(bytes, u64::from(self.salt)) as u32,
            false => 0,
        }
    }
}

/// Whether an integer has at most 1,024 bits: two whose sizes differ are compared by these alone.
fn is_limited(number: Term) -> bool {
    let made = |bytes| number.get_env().binary_to_term(bytes);
    match (made(&LARGE_BELOW_ZERO), made(&LARGE)) {
        (Some((least, _)), Some((most, _))) => least <= number && number <= most,
        _ => false,
    }
}

/// Where the next end of an edge may be found: edges mostly follow the nodes, one edge or some for each.
///
/// Two ids are compared faster than one is hashed and looked for. Where guesses fail, no more are made.
pub struct Guess {
    last: u32,
    /// By how much the last right guess was ahead of the one before.
    step: u32,
    credit: i32,
}

impl Guess {
    pub const fn new() -> Self {
        Self {
            last: 0,
            step: 1,
            credit: 16,
        }
    }

    /// The index of which `is_it` is true, if it is one that was guessed, or else what `find` gives.
    #[inline]
    pub fn or(
        &mut self,
        is_it: impl Fn(u32) -> bool,
        find: impl FnOnce() -> Option<u32>,
    ) -> Option<u32> {
        if self.credit <= 0 {
            return find();
        }
        for step in [self.step, 1 - self.step] {
            let guess = self.last + step;
            if is_it(guess) {
                *self = Self {
                    last: guess,
                    step,
                    credit: (self.credit + 1).min(64),
                };
                return Some(guess);
            }
        }
        self.credit -= 4;
        let found = find();
        self.last = found.unwrap_or(self.last);
        found
    }
}

/// The salt of this load of the library.
fn salt() -> u32 {
    static SALT: OnceLock<u32> = OnceLock::new();
    *SALT.get_or_init(|| RandomState::new().hash_one(0_u8) as u32)
}

/// The two ends of an edge.
#[inline]
pub fn ends(edge: Term) -> NifResult<(Term, Term)> {
    match elements(edge)? {
        [from, to] => Ok((term(edge.get_env(), *from), term(edge.get_env(), *to))),
        _ => Err(Error::BadArg),
    }
}

#[inline]
fn elements<'a>(term: Term<'a>) -> NifResult<&'a [NIF_TERM]> {
    // SAFETY: `term` is a term of its environment. If it is a tuple its elements lie, unchanged, on the heap
    // of the calling process as long as the environment of this call lives, and that is 'a.
    let elements: Result<&'a [NIF_TERM], _> =
        unsafe { tuple::get_tuple(term.get_env().as_c_arg(), term.as_c_arg()) };
    elements.map_err(|_| Error::BadArg)
}

#[inline]
fn term<'a>(env: Env<'a>, raw: NIF_TERM) -> Term<'a> {
    // SAFETY: all callers took `raw` from a tuple that is a term of `env`.
    unsafe { Term::new(env, raw) }
}
