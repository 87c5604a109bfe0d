//! Results of compression as terms, and dictionaries from terms.

use crate::Kept;
use esdb_core::archive::{
    Error,
    dictionary::{self, Dictionary, Prepared},
    zstd,
};
use rustler::{
    Binary, Decoder, Encoder, Env, NewBinary, NifResult, OwnedBinary, ResourceArc, Term,
    types::tuple,
};
use std::cell::RefCell;
use std::sync::Arc;

mod atoms {
    rustler::atoms! {
        long, none,
        truncated, corrupt, checksum_mismatch, too_large, window_too_large, dictionary_mismatch,
        invalid_dictionary, no_memory,
    }
}

/// Up to this size content goes through a buffer of the thread, and is copied into a binary that fits.
pub const SMALL: usize = 64 << 10;
/// That many bytes are counted as one hundredth of a timeslice (1 ms).
const BYTES_A_PERCENT: usize = 2_048;
/// The same for a dictionary that is prepared, with what each of them takes.
const PREPARED_A_PERCENT: usize = 512;
const PREPARED_AT_LEAST: usize = 2_048;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What a NIF answers when all is well.
pub enum Found<'a> {
    /// The content.
    Content(Binary<'a>),
    /// Instead of it `long`: more work than a normal scheduler should be kept with.
    Long,
}

impl Encoder for Found<'_> {
    fn encode<'b>(&self, env: Env<'b>) -> Term<'b> {
        match self {
            Self::Content(binary) => binary.to_term(env),
            Self::Long => atoms::long().encode(env),
        }
    }
}

/// Why there is none. (rustler makes `{ok, Found}` and `{error, Fail}` of a `Result`.)
pub struct Fail(Error);

impl From<Error> for Fail {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl Encoder for Fail {
    fn encode<'b>(&self, env: Env<'b>) -> Term<'b> {
        match self.0 {
            Error::Truncated => atoms::truncated().encode(env),
            Error::Corrupt => atoms::corrupt().encode(env),
            Error::ChecksumMismatch => atoms::checksum_mismatch().encode(env),
            Error::TooLarge(limit) => (atoms::too_large(), limit).encode(env),
            Error::WindowTooLarge(size) => (atoms::window_too_large(), size).encode(env),
            Error::DictionaryMismatch(id) => (atoms::dictionary_mismatch(), id).encode(env),
            Error::InvalidDictionary => atoms::invalid_dictionary().encode(env),
            Error::NoMemory => atoms::no_memory().encode(env),
        }
    }
}

/// Tells the scheduler about work on so many bytes; a call costs a percent in any case.
pub fn charge(env: Env, bytes: usize) {
    esdb_boundary::charge(env, bytes.max(BYTES_A_PERCENT), BYTES_A_PERCENT);
}

/// The content that `fill` writes into `capacity` bytes; it returns how many of them it used.
pub fn at_most<'a>(
    env: Env<'a>,
    capacity: usize,
    fill: impl FnOnce(&mut [u8]) -> Result<usize, Error>,
) -> Result<Found<'a>, Fail> {
    if capacity <= SMALL {
        return SCRATCH.with_borrow_mut(|scratch| {
            scratch.resize(SMALL, 0);
            let used = fill(scratch.get_mut(..capacity).unwrap_or_default())?;
            copy(env, scratch.get(..used).unwrap_or_default())
        });
    }
    let mut binary = OwnedBinary::new(capacity).ok_or(Error::NoMemory)?;
    let used = fill(binary.as_mut_slice())?;
    binary.realloc_or_copy(used);
    Ok(Found::Content(binary.release(env)))
}

/// The content that `fill` writes into exactly `size` bytes; it returns how many of them it used. What it left
/// out would be memory of who knows whom.
pub fn exactly<'a>(
    env: Env<'a>,
    size: usize,
    fill: impl FnOnce(&mut [u8]) -> Result<usize, Error>,
) -> Result<Found<'a>, Fail> {
    if size <= SMALL {
        let mut binary = NewBinary::new(env, size);
        filled(size, fill(binary.as_mut_slice())?)?;
        return Ok(Found::Content(binary.into()));
    }
    let mut binary = OwnedBinary::new(size).ok_or(Error::NoMemory)?;
    filled(size, fill(binary.as_mut_slice())?)?;
    Ok(Found::Content(binary.release(env)))
}

/// The content that `fill` writes into as much room as it asks for; it returns how much of it it used.
pub fn growing<'a>(
    env: Env<'a>,
    fill: impl FnOnce(&mut Growing) -> Result<usize, Error>,
) -> Result<Found<'a>, Fail> {
    let mut growing = Growing(OwnedBinary::new(0).ok_or(Error::NoMemory)?);
    let used = fill(&mut growing)?;
    let mut binary = growing.0;
    binary.realloc_or_copy(used);
    Ok(Found::Content(binary.release(env)))
}

/// A binary that grows.
pub struct Growing(OwnedBinary);

impl zstd::Output for Growing {
    fn room(&mut self, size: usize) -> Result<&mut [u8], Error> {
        if size > self.0.len() && !self.0.realloc(size) {
            return Err(Error::NoMemory);
        }
        Ok(self.0.as_mut_slice())
    }
}

fn filled(size: usize, used: usize) -> Result<(), Error> {
    if used == size {
        Ok(())
    } else {
        Err(Error::Corrupt)
    }
}

/// A copy of these bytes.
pub fn copy<'a>(env: Env<'a>, bytes: &[u8]) -> Result<Found<'a>, Fail> {
    let mut binary = NewBinary::new(env, bytes.len());
    binary.as_mut_slice().copy_from_slice(bytes);
    Ok(Found::Content(binary.into()))
}

/// `none`, the bytes of a dictionary, or a handle `{esdb_dictionary, Bytes, Ref}`.
pub enum DictionaryArg<'a> {
    None,
    Bytes(Binary<'a>),
    Kept(ResourceArc<Kept>),
}

impl<'a> Decoder<'a> for DictionaryArg<'a> {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        if atoms::none() == term {
            return Ok(Self::None);
        }
        if term.is_binary() {
            return term.decode().map(Self::Bytes);
        }
        let [_tag, bytes, reference] = tuple::get_tuple(term)?[..] else {
            return Err(rustler::Error::BadArg);
        };
        let bytes: Binary = bytes.decode()?;
        // The bytes decide. The reference is foreign when the handle was made by another node, the twin or
        // another load, and it is anything at all when somebody put a handle together.
        match reference.decode::<ResourceArc<Kept>>() {
            Ok(kept) if kept.0.is_made_of(&bytes) => Ok(Self::Kept(kept)),
            _ => Ok(Self::Bytes(bytes)),
        }
    }
}

impl DictionaryArg<'_> {
    /// The dictionary prepared for use, at `level` where it has to be made; the scheduler is told when it was,
    /// and when that failed.
    pub fn prepared(&self, env: Env, level: i32) -> Result<Option<Arc<Dictionary>>, Error> {
        let bytes = match self {
            Self::None => return Ok(None),
            Self::Kept(kept) => return Ok(Some(Arc::clone(&kept.0))),
            Self::Bytes(bytes) => bytes,
        };
        let prepared = dictionary::prepared(bytes, level);
        if !matches!(
            &prepared,
            Ok(Prepared {
                was_made: false,
                ..
            })
        ) {
            let work = PREPARED_AT_LEAST + bytes.len();
            esdb_boundary::charge(env, work, PREPARED_A_PERCENT);
        }
        prepared.map(|prepared| Some(prepared.dictionary))
    }
}
