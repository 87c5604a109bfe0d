//! The vectors of `test/vectors/hash.json`, the same that the Erlang suites read.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod vectors;

use std::num::NonZeroU32;

use esdb_core::hash;
use proptest::prelude::*;
use vectors::{bytes, rows};

/// The buffer of xxHash's own sanity checks, as in `generate.py`.
fn data(length: usize) -> Vec<u8> {
    let mut state = 2_654_435_761_u64;
    (0..length)
        .map(|_| {
            let byte = (state >> 56) as u8;
            state = state.wrapping_mul(11_400_714_785_074_694_797);
            byte
        })
        .collect()
}

#[test]
fn xxhash() {
    for row in rows("hash", "xxhash") {
        let data = data(row[0].as_u64().unwrap() as usize);
        let seed = row[1].as_u64().unwrap();
        assert_eq!(
            hash::xxhash64(&data, seed),
            row[2].as_u64().unwrap(),
            "XXH64 {row}"
        );
        assert_eq!(
            hash::xxhash3_seeded(&data, seed),
            row[3].as_u64().unwrap(),
            "XXH3 {row}"
        );
        if seed == 0 {
            assert_eq!(hash::xxhash3(&data), row[3].as_u64().unwrap(), "XXH3 {row}");
        }
    }
}

#[test]
fn fnv1a() {
    for row in rows("hash", "fnv1a") {
        assert_eq!(
            hash::fnv1a(&bytes(&row[0])),
            row[1].as_u64().unwrap(),
            "{row}"
        );
    }
}

#[test]
fn partitions() {
    let count =
        |value: &serde_json::Value| NonZeroU32::new(value.as_u64().unwrap() as u32).unwrap();
    for row in rows("hash", "partitions") {
        let partition = hash::partition(&bytes(&row[0]), count(&row[1]));
        assert_eq!(u64::from(partition), row[2].as_u64().unwrap(), "{row}");
    }
    for row in rows("hash", "streams") {
        let partition = hash::stream_partition(&bytes(&row[0]), &bytes(&row[1]), count(&row[2]));
        assert_eq!(u64::from(partition), row[3].as_u64().unwrap(), "{row}");
    }
}

proptest! {
    #[test]
    fn pieces_make_the_whole(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..700), 0..8), seed: u64) {
        let mut state = hash::Xxh3::new(seed);
        let mut whole = vec![];
        for piece in &pieces {
            let before = (state.clone(), hash::xxhash3_seeded(&whole, seed));
            state.update(piece);
            whole.extend_from_slice(piece);
            prop_assert_eq!(state.digest(), hash::xxhash3_seeded(&whole, seed));
            prop_assert_eq!(before.0.digest(), before.1);
        }
    }

    #[test]
    fn a_stream_is_its_names_joined(store in prop::collection::vec(any::<u8>(), 0..300), stream: Vec<u8>, count: NonZeroU32) {
        let whole = [&store[..], &[0], &stream].concat();
        prop_assert_eq!(hash::stream_partition(&store, &stream, count), hash::partition(&whole, count));
    }
}
