//! Non-cryptographic hashes, each exactly as its specification says.

use std::hash::Hasher;

/// FNV-1a, 64 bits (draft-eastlake-fnv).
#[must_use]
pub fn fnv1a(data: &[u8]) -> u64 {
    let mut hasher = fnv::FnvHasher::default();
    hasher.write(data);
    hasher.finish()
}
