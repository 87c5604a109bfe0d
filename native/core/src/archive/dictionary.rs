//! Zstandard dictionaries, prepared once and used many times.

use super::Error;
use super::zstd::DEFAULT_LEVEL;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use xxhash_rust::xxh3::xxh3_64;
use zstd_safe::{CDict, DDict};

/// The magic number in front of a trained dictionary; without it the bytes are raw content.
const MAGIC: u32 = 0xEC30_A437;

/// The id of a dictionary, 0 for raw content.
#[must_use]
pub fn id(bytes: &[u8]) -> u32 {
    match bytes.first_chunk::<8>() {
        Some(&[a, b, c, d, e, f, g, h]) if u32::from_le_bytes([a, b, c, d]) == MAGIC => {
            u32::from_le_bytes([e, f, g, h])
        }
        _ => 0,
    }
}

/// Samples to train a dictionary on, as libzstd's trainer wants them: one behind the other.
pub struct Samples {
    joined: Vec<u8>,
    sizes: Vec<usize>,
}

impl Samples {
    /// Room for `count` samples of `bytes` bytes together.
    ///
    /// # Errors
    /// [`Error::NoMemory`].
    pub fn with_capacity(bytes: usize, count: usize) -> Result<Self, Error> {
        Ok(Self {
            joined: vec(bytes)?,
            sizes: vec(count)?,
        })
    }

    /// Adds a sample.
    ///
    /// # Errors
    /// [`Error::NoMemory`] where there was no room left, and there is none.
    pub fn push(&mut self, sample: &[u8]) -> Result<(), Error> {
        let room = self.joined.try_reserve(sample.len());
        room.and_then(|()| self.sizes.try_reserve(1))
            .map_err(|_| Error::NoMemory)?;
        self.joined.extend_from_slice(sample);
        self.sizes.push(sample.len());
        Ok(())
    }

    /// Trains a dictionary of at most `size` bytes.
    ///
    /// # Errors
    /// [`Error::InvalidDictionary`] when the trainer finds nothing to learn, [`Error::NoMemory`].
    pub fn train(&self, size: usize) -> Result<Vec<u8>, Error> {
        let mut dictionary = vec(size)?;
        zstd_safe::train_from_buffer(&mut dictionary, &self.joined, &self.sizes)
            .map_err(|_| Error::InvalidDictionary)?;
        give_short_id(&mut dictionary);
        Ok(dictionary)
    }
}

/// The ids that two bytes hold and that nobody registers (RFC 8878, 5).
const SHORT_IDS: Range<u64> = 0x8000..0x1_0000;

/// The trainer gives ids of four bytes. Each frame carries the id, and two bytes are two hundredths of a small
/// event; which two they are follows from the content.
fn give_short_id(dictionary: &mut [u8]) {
    if let Some((head, content)) = dictionary.split_first_chunk_mut::<8>() {
        let id = SHORT_IDS.start + xxh3_64(content) % (SHORT_IDS.end - SHORT_IDS.start);
        let [low, high, ..] = id.to_le_bytes();
        *head = magic_and_id(low, high);
    }
}

fn magic_and_id(low: u8, high: u8) -> [u8; 8] {
    let [a, b, c, d] = MAGIC.to_le_bytes();
    [a, b, c, d, low, high, 0, 0]
}

/// An empty vector with room: where there is none that is an error, and not the end of the VM.
fn vec<T>(capacity: usize) -> Result<Vec<T>, Error> {
    let mut vec = Vec::new();
    vec.try_reserve_exact(capacity)
        .map_err(|_| Error::NoMemory)?;
    Ok(vec)
}

/// A dictionary in the forms that compression and decompression need.
///
/// Compression needs one for each level, of which the one for the default level and the last other one are kept.
pub struct Dictionary {
    bytes: Vec<u8>,
    id: u32,
    decompress: DDict<'static>,
    compress: Mutex<Compress>,
}

#[derive(Default)]
struct Compress {
    default: Option<Arc<CDict<'static>>>,
    other: Option<(i32, Arc<CDict<'static>>)>,
}

impl Compress {
    fn get(&self, level: i32) -> Option<Arc<CDict<'static>>> {
        match &self.other {
            Some((other, prepared)) if *other == level => Some(Arc::clone(prepared)),
            _ if level == DEFAULT_LEVEL => self.default.clone(),
            _ => None,
        }
    }

    fn put(&mut self, level: i32, prepared: &Arc<CDict<'static>>) {
        match level {
            DEFAULT_LEVEL => self.default = Some(Arc::clone(prepared)),
            _ => self.other = Some((level, Arc::clone(prepared))),
        }
    }

    fn size(&self) -> usize {
        let other = self.other.as_ref().map(|(_, prepared)| prepared);
        let kept = self.default.iter().chain(other);
        kept.map(|prepared| prepared.sizeof()).sum()
    }
}

impl Dictionary {
    /// Prepares a dictionary for decompression and for compression at `level`; other levels follow when they
    /// are asked for.
    ///
    /// # Errors
    /// [`Error::InvalidDictionary`], [`Error::NoMemory`].
    pub fn new(bytes: &[u8], level: i32) -> Result<Self, Error> {
        let dictionary = Self::to_decompress(bytes)?;
        dictionary.for_compression(level)?;
        Ok(dictionary)
    }

    /// Prepares a dictionary for decompression alone, which takes a small part of the time.
    ///
    /// # Errors
    /// [`Error::InvalidDictionary`], [`Error::NoMemory`].
    fn to_decompress(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.is_empty() {
            return Err(Error::InvalidDictionary);
        }
        let mut own = vec(bytes.len())?;
        own.extend_from_slice(bytes);
        Ok(Self {
            bytes: own,
            id: id(bytes),
            decompress: DDict::try_create(bytes).ok_or(Error::InvalidDictionary)?,
            compress: Mutex::default(),
        })
    }

    /// The id, 0 for raw content.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The bytes it was made of.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How much memory it takes now, with all that has been prepared.
    #[must_use]
    pub fn size(&self) -> usize {
        let compress = self.compress.lock().map_or(0, |compress| compress.size());
        size_of::<Self>() + self.bytes.capacity() + self.decompress.sizeof() + compress
    }

    /// Whether it was made of these bytes, which takes no time where they are the very ones of
    /// [`bytes`](Self::bytes) in memory.
    #[must_use]
    pub fn is_made_of(&self, bytes: &[u8]) -> bool {
        std::ptr::eq(self.bytes.as_slice(), bytes) || self.bytes == bytes
    }

    /// Whether compression at this level can begin at once.
    #[must_use]
    pub fn is_prepared(&self, level: i32) -> bool {
        let compress = self.compress.lock();
        compress.is_ok_and(|compress| compress.get(level).is_some())
    }

    pub(super) fn for_decompression(&self) -> &DDict<'static> {
        &self.decompress
    }

    pub(super) fn for_compression(&self, level: i32) -> Result<Arc<CDict<'static>>, Error> {
        let lock = || self.compress.lock().map_err(|_| Error::NoMemory);
        if let Some(prepared) = lock()?.get(level) {
            return Ok(prepared);
        }
        // Made outside the lock; two threads may both make it once.
        let made = CDict::try_create(&self.bytes, level).ok_or(Error::InvalidDictionary)?;
        let made = Arc::new(made);
        lock()?.put(level, &made);
        Ok(made)
    }
}

/// Dictionaries that came as bytes: from a caller without a handle, from another node or an earlier load.
struct Recent(VecDeque<Arc<Dictionary>>);

const RECENT_COUNT: usize = 16;
/// Of all that has been prepared.
const RECENT_SIZE: usize = 32 << 20;
/// Above this a dictionary is prepared for each call: to compare it would also be long work.
const RECENT_LARGEST: usize = 1 << 20;

static RECENT: Mutex<Recent> = Mutex::new(Recent(VecDeque::new()));

impl Recent {
    fn get(&mut self, bytes: &[u8]) -> Option<Arc<Dictionary>> {
        let position = self.0.iter().position(|known| known.is_made_of(bytes))?;
        let found = self.0.remove(position)?;
        self.0.push_front(Arc::clone(&found));
        Some(found)
    }

    fn put(&mut self, dictionary: &Arc<Dictionary>) {
        self.0.push_front(Arc::clone(dictionary));
        self.trim();
    }

    fn trim(&mut self) {
        while self.0.len() > RECENT_COUNT || self.size() > RECENT_SIZE {
            self.0.pop_back();
        }
    }

    fn size(&self) -> usize {
        self.0.iter().map(|dictionary| dictionary.size()).sum()
    }
}

/// The prepared form of some bytes.
pub struct Prepared {
    /// Ready for decompression, and for compression at the level that was asked for.
    pub dictionary: Arc<Dictionary>,
    /// Whether something had to be made, which takes long.
    pub was_made: bool,
}

/// The prepared form of these bytes, from a small cache where it was used lately.
///
/// # Errors
/// [`Error::InvalidDictionary`], [`Error::NoMemory`].
pub fn prepared(bytes: &[u8], level: i32) -> Result<Prepared, Error> {
    prepared_in(&RECENT, bytes, level)
}

/// The form of these bytes that decompression needs, from the same cache.
///
/// # Errors
/// [`Error::InvalidDictionary`], [`Error::NoMemory`].
pub fn to_decompress(bytes: &[u8]) -> Result<Arc<Dictionary>, Error> {
    if bytes.len() > RECENT_LARGEST {
        return Dictionary::to_decompress(bytes).map(Arc::new);
    }
    let lock = || RECENT.lock().map_err(|_| Error::NoMemory);
    if let Some(known) = lock()?.get(bytes) {
        return Ok(known);
    }
    let made = Arc::new(Dictionary::to_decompress(bytes)?);
    lock()?.put(&made);
    Ok(made)
}

fn prepared_in(recent: &Mutex<Recent>, bytes: &[u8], level: i32) -> Result<Prepared, Error> {
    if bytes.len() > RECENT_LARGEST {
        return made(bytes, level);
    }
    let lock = || recent.lock().map_err(|_| Error::NoMemory);
    let known = lock()?.get(bytes);
    let Some(dictionary) = known else {
        // Made outside the lock; two threads may both make it once.
        let made = made(bytes, level)?;
        lock()?.put(&made.dictionary);
        return Ok(made);
    };
    let was_made = !dictionary.is_prepared(level);
    if was_made {
        dictionary.for_compression(level)?;
        lock()?.trim();
    }
    Ok(Prepared {
        dictionary,
        was_made,
    })
}

fn made(bytes: &[u8], level: i32) -> Result<Prepared, Error> {
    Ok(Prepared {
        dictionary: Arc::new(Dictionary::new(bytes, level)?),
        was_made: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(seed: u32, len: usize) -> Vec<u8> {
        let mut state = seed;
        let next = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..len).map(next).collect()
    }

    #[test]
    fn two_levels_are_kept() -> Result<(), Error> {
        let dictionary = Dictionary::new(&bytes(1, 1 << 16), DEFAULT_LEVEL)?;
        let alone = dictionary.size();
        assert!(alone > 3 << 16, "{alone}");
        for level in 1..=22 {
            dictionary.for_compression(level)?;
        }
        assert!((1..=22).all(|level| dictionary.is_prepared(level) == matches!(level, 3 | 22)));
        let last = dictionary.for_compression(22)?.sizeof();
        assert_eq!(dictionary.size(), alone + last);
        Ok(())
    }

    #[test]
    fn what_is_remembered_is_counted_with_all_that_was_prepared() -> Result<(), Error> {
        let recent = Mutex::new(Recent(VecDeque::new()));
        for level in [3, 9, 22, 3] {
            for seed in 0..4 {
                prepared_in(&recent, &bytes(seed, 950_000), level)?;
                let recent = recent.lock().map_err(|_| Error::NoMemory)?;
                assert!(recent.size() <= RECENT_SIZE, "{}", recent.size());
            }
        }
        Ok(())
    }

    #[test]
    fn what_was_made_is_told() -> Result<(), Error> {
        let recent = Mutex::new(Recent(VecDeque::new()));
        let data = bytes(1, 5000);
        let made = [3, 3, 5, 3, 5, 7, 5]
            .map(|level| prepared_in(&recent, &data, level).map(|prepared| prepared.was_made));
        let expected = [true, false, true, false, false, true, true];
        assert_eq!(made, expected.map(Ok));
        Ok(())
    }
}
