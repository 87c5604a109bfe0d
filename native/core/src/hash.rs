//! Non-cryptographic hashes, each exactly as its specification says.
//!
//! What is stored or routed on (partitions above all) depends on these values, so they never change:
//! the published vectors in `test/vectors/hash.json` hold them to it.

use std::hash::Hasher;
use std::num::NonZeroU32;

use xxhash_rust::{xxh3, xxh64};

/// FNV-1a, 64 bits (RFC 9923).
#[must_use]
pub fn fnv1a(data: &[u8]) -> u64 {
    let mut hasher = fnv::FnvHasher::default();
    hasher.write(data);
    hasher.finish()
}

/// XXH64 (xxHash specification, section "XXH64 algorithm").
#[must_use]
pub fn xxhash64(data: &[u8], seed: u64) -> u64 {
    xxh64::xxh64(data, seed)
}

/// XXH3, 64 bits, default secret, seed 0.
#[must_use]
pub fn xxhash3(data: &[u8]) -> u64 {
    xxh3::xxh3_64(data)
}

/// XXH3, 64 bits, with the secret that the specification derives from `seed`.
#[must_use]
pub fn xxhash3_seeded(data: &[u8], seed: u64) -> u64 {
    xxh3::xxh3_64_with_seed(data, seed)
}

/// The partition of `data` among `partitions`: XXH3 modulo their number.
#[must_use]
pub fn partition(data: &[u8], partitions: NonZeroU32) -> u32 {
    remainder(xxhash3(data), partitions)
}

/// The partition of a stream of a store: XXH3 of the store, a zero byte and the stream, modulo the number.
///
/// Names are short as a rule; such a key is put together on the stack, because one pass over a hundred
/// bytes costs less than setting up the state that hashes pieces.
#[must_use]
pub fn stream_partition(store: &[u8], stream: &[u8], partitions: NonZeroU32) -> u32 {
    const SHORT: usize = 240;
    let pieces = [store, &[0], stream];
    let mut key = [0_u8; SHORT];
    let mut length = 0;
    for piece in pieces {
        let Some(place) = key.get_mut(length..length + piece.len()) else {
            let mut state = Xxh3::new(0);
            pieces.iter().for_each(|piece| state.update(piece));
            return remainder(state.digest(), partitions);
        };
        place.copy_from_slice(piece);
        length += piece.len();
    }
    partition(key.get(..length).unwrap_or_default(), partitions)
}

/// A remainder fits where the divisor does.
#[allow(clippy::cast_possible_truncation)]
fn remainder(hash: u64, partitions: NonZeroU32) -> u32 {
    (hash % u64::from(partitions.get())) as u32
}

/// XXH3 of data that comes in pieces.
#[derive(Clone)]
pub struct Xxh3(xxh3::Xxh3);

impl Xxh3 {
    /// The state before the first byte.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(xxh3::Xxh3::with_seed(seed))
    }

    /// Goes on with `data`.
    pub fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    /// The hash of all data so far, equal to [`xxhash3_seeded`] of it in one piece.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.0.digest()
    }
}
