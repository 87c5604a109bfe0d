//! Zstandard dictionaries, prepared once and used many times.

use super::Error;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock};
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

/// Trains a dictionary of at most `size` bytes; `samples` are the pieces of `joined`, by their sizes.
///
/// # Errors
/// [`Error::InvalidDictionary`] when the trainer finds nothing to learn.
pub fn train(joined: &[u8], samples: &[usize], size: usize) -> Result<Vec<u8>, Error> {
    let mut dictionary = Vec::with_capacity(size);
    match zstd_safe::train_from_buffer(&mut dictionary, joined, samples) {
        Ok(_) => Ok(dictionary),
        Err(_) => Err(Error::InvalidDictionary),
    }
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
    /// [`Error::InvalidDictionary`].
    pub fn new(bytes: &[u8], level: i32) -> Result<Self, Error> {
        if bytes.is_empty() {
            return Err(Error::InvalidDictionary);
        }
        let dictionary = Self {
            bytes: bytes.to_vec(),
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

    /// Whether the form for that level has been made, so that compressing with it is short work.
    #[must_use]
    pub fn is_ready(&self, level: i32) -> bool {
        self.slot(level).is_some_and(|slot| slot.get().is_some())
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
        let position = self.0.iter().position(|known| known.bytes == bytes)?;
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
