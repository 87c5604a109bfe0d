//! Zstandard dictionaries, prepared once and used many times.

use super::Error;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock};
use xxhash_rust::xxh3::xxh3_64;
use zstd_safe::{CDict, DDict};

/// The magic number in front of a trained dictionary; without it the bytes are raw content.
const MAGIC: u32 = 0xEC30_A437;
const MAX_LEVEL: usize = 22;

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

/// A dictionary in the forms that compression (one for each level) and decompression need.
pub struct Dictionary {
    bytes: Vec<u8>,
    id: u32,
    decompress: DDict<'static>,
    compress: [OnceLock<Option<CDict<'static>>>; MAX_LEVEL + 1],
}

impl Dictionary {
    /// Prepares a dictionary for decompression and for compression at `level`; other levels follow when they
    /// are first asked for.
    ///
    /// # Errors
    /// [`Error::InvalidDictionary`], [`Error::NoMemory`].
    pub fn new(bytes: &[u8], level: i32) -> Result<Self, Error> {
        if bytes.is_empty() {
            return Err(Error::InvalidDictionary);
        }
        let mut own = vec(bytes.len())?;
        own.extend_from_slice(bytes);
        let dictionary = Self {
            bytes: own,
            id: id(bytes),
            decompress: DDict::try_create(bytes).ok_or(Error::InvalidDictionary)?,
            compress: [const { OnceLock::new() }; MAX_LEVEL + 1],
        };
        dictionary.for_compression(level)?;
        Ok(dictionary)
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

    /// Whether it was made of these bytes, which takes no time where they are the very ones of
    /// [`bytes`](Self::bytes) in memory.
    #[must_use]
    pub fn is_made_of(&self, bytes: &[u8]) -> bool {
        std::ptr::eq(self.bytes.as_slice(), bytes) || self.bytes == bytes
    }

    pub(super) fn for_decompression(&self) -> &DDict<'static> {
        &self.decompress
    }

    pub(super) fn for_compression(&self, level: i32) -> Result<&CDict<'static>, Error> {
        self.slot(level)
            .and_then(|slot| {
                slot.get_or_init(|| CDict::try_create(&self.bytes, level))
                    .as_ref()
            })
            .ok_or(Error::InvalidDictionary)
    }

    fn slot(&self, level: i32) -> Option<&OnceLock<Option<CDict<'static>>>> {
        usize::try_from(level)
            .ok()
            .and_then(|index| self.compress.get(index))
    }
}

/// Dictionaries that came as bytes: from a caller without a handle, from another node or an earlier load.
struct Recent(VecDeque<Arc<Dictionary>>);

const RECENT_COUNT: usize = 16;
const RECENT_BYTES: usize = 4 << 20;
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
        while self.0.len() > RECENT_COUNT || self.bytes() > RECENT_BYTES {
            self.0.pop_back();
        }
    }

    fn bytes(&self) -> usize {
        self.0.iter().map(|dictionary| dictionary.bytes.len()).sum()
    }
}

/// The prepared form of these bytes, from a small cache where it was used lately.
///
/// # Errors
/// [`Error::InvalidDictionary`].
pub fn prepared(bytes: &[u8], level: i32) -> Result<Arc<Dictionary>, Error> {
    if bytes.len() > RECENT_LARGEST {
        return Dictionary::new(bytes, level).map(Arc::new);
    }
    let mut known = RECENT.lock().ok().and_then(|mut recent| recent.get(bytes));
    if known.is_none() {
        // Made outside the lock; two threads may both make it once.
        let made = Arc::new(Dictionary::new(bytes, level)?);
        if let Ok(mut recent) = RECENT.lock() {
            recent.put(&made);
        }
        known = Some(made);
    }
    known.ok_or(Error::InvalidDictionary)
}
