//! Compression against what independent implementations wrote, and against any bytes at all.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use base64::{Engine, engine::general_purpose::STANDARD};
use esdb_core::archive::{Error, dictionary, dictionary::Dictionary, lz4, zstd};
use proptest::prelude::*;
use serde_json::Value;
use std::collections::HashMap;
use vectors::{bytes as hex, rows};

mod vectors;

const MAX_SIZE: u64 = 1 << 24;

fn compress_lz4(data: &[u8]) -> Vec<u8> {
    let mut output = vec![0; lz4::compress_bound(data.len())];
    let written = lz4::compress(data, &mut output).unwrap();
    output.truncate(written);
    output
}

fn decompress_lz4(data: &[u8]) -> Result<Vec<u8>, Error> {
    let mut output = vec![0; lz4::content_size(data, MAX_SIZE)?];
    lz4::decompress(data, &mut output)?;
    Ok(output)
}

fn compress_zstd(data: &[u8], level: i32, dictionary: Option<&Dictionary>) -> Vec<u8> {
    let mut output = vec![0; zstd::compress_bound(data.len())];
    let written = zstd::compress(data, &mut output, level, true, dictionary).unwrap();
    output.truncate(written);
    output
}

fn decompress_zstd(data: &[u8], dictionary: Option<&Dictionary>) -> Result<Vec<u8>, Error> {
    let plan = zstd::plan(data, MAX_SIZE, dictionary)?;
    let mut output = Vec::new();
    let written = zstd::decompress(data, &mut output, plan, MAX_SIZE, dictionary)?;
    output.truncate(written);
    Ok(output)
}

fn bytes(value: &Value) -> Vec<u8> {
    STANDARD.decode(value.as_str().unwrap()).unwrap()
}

#[test]
fn written_by_others() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../test/vectors/archive.json"
    );
    let document: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let contents: HashMap<_, Vec<u8>> = document["contents"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, pieces)| {
            let piece = |p: &Value| bytes(&p[0]).repeat(p[1].as_u64().unwrap() as usize);
            (
                name.clone(),
                pieces.as_array().unwrap().iter().flat_map(piece).collect(),
            )
        })
        .collect();
    let dictionaries: HashMap<_, _> = document["dictionaries"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, known)| {
            let data = bytes(&known["bytes"]);
            assert_eq!(
                u64::from(dictionary::id(&data)),
                known["id"].as_u64().unwrap()
            );
            (
                name.clone(),
                Dictionary::new(&data, zstd::DEFAULT_LEVEL).unwrap(),
            )
        })
        .collect();
    for case in document["cases"].as_array().unwrap() {
        let compressed = bytes(&case["compressed"]);
        let dictionary = case["dictionary"].as_str().map(|name| &dictionaries[name]);
        let content = match case["algorithm"].as_str().unwrap() {
            "lz4" => decompress_lz4(&compressed),
            "zstd" => decompress_zstd(&compressed, dictionary),
            // zlib is Erlang's in both modes.
            _ => continue,
        };
        assert_eq!(
            content.as_ref(),
            Ok(&contents[case["content"].as_str().unwrap()]),
            "{case}"
        );
    }
}

#[test]
fn rfc8878() {
    for case in rows("archive_rfc8878", "frames") {
        let content = case["content"].as_str().unwrap().as_bytes().to_vec();
        assert_eq!(
            decompress_zstd(&hex(&case["frame"]), None),
            Ok(content),
            "{case}"
        );
    }
    for case in rows("archive_rfc8878", "broken") {
        let reason = match case["reason"].as_str().unwrap() {
            "truncated" => Error::Truncated,
            "checksum_mismatch" => Error::ChecksumMismatch,
            _ => Error::Corrupt,
        };
        let content = decompress_zstd(&hex(&case["frame"]), None);
        assert_eq!(content, Err(reason), "{case}");
    }
}

fn joined(samples: &[String]) -> dictionary::Samples {
    let mut joined = dictionary::Samples::with_capacity(0, samples.len()).unwrap();
    for sample in samples {
        joined.push(sample.as_bytes()).unwrap();
    }
    joined
}

#[test]
fn what_finds_no_memory_is_an_error() {
    let samples = dictionary::Samples::with_capacity(usize::MAX, 1);
    assert_eq!(samples.err(), Some(Error::NoMemory));
    let samples = joined(&vec!["a sample like any other".to_owned(); 100]);
    assert_eq!(samples.train(usize::MAX), Err(Error::NoMemory));
}

#[test]
fn a_dictionary_knows_the_bytes_it_was_made_of() {
    let made = Dictionary::new(b"one dictionary", 3).unwrap();
    assert!(made.is_made_of(made.bytes()));
    assert!(made.is_made_of(b"one dictionary"));
    assert!(!made.is_made_of(b"two dictionary"));
    assert!(!made.is_made_of(b"one"));
}

/// Nothing of an output that a frame did not fill may be handed out.
#[test]
fn content_of_another_size_than_planned_is_corrupt() {
    let frame = compress_zstd(b"hello", 3, None);
    for (least, most) in [(10, 10), (6, 9), (0, 4)] {
        for is_short in [true, false] {
            let plan = zstd::Plan {
                least,
                most,
                is_short,
                window: None,
            };
            let mut output = [0; 10];
            assert_eq!(
                zstd::decompress(&frame, &mut output[..], plan, MAX_SIZE, None),
                Err(Error::Corrupt)
            );
        }
    }
}

/// At the default level tiny inputs have an encoder of their own.
#[test]
fn tiny_inputs_become_as_small_as_others() {
    let event = |n: u32| {
        format!(
            "{{\"event_id\":\"{0:08x}{1:08x}\",\"event_type\":\"order_placed\",\"stream_id\":\"order-{2}\",\
             \"data\":{{\"items\":{3},\"total\":{4},\"currency\":\"EUR\"}},\"metadata\":{{\"causation_id\":\
             \"{1:08x}{0:08x}\",\"correlation_id\":\"{0:08x}\",\"actor_id\":\"actor-{3}\"}}}}",
            n.wrapping_mul(2_654_435_761),
            n.wrapping_mul(40_503),
            n % 131,
            n % 9,
            n * 17
        )
    };
    let (mut ours, mut libzstd) = (0, 0);
    for n in 0..500 {
        let data = event(n);
        ours += compress_zstd(data.as_bytes(), 3, None).len();
        let mut plain = Vec::with_capacity(1024);
        libzstd += 4 + zstd_safe::compress(&mut plain, data.as_bytes(), 3).unwrap();
    }
    assert!(ours * 100 <= libzstd * 101, "{ours} against {libzstd}");
}

#[test]
fn a_trained_dictionary_makes_events_smaller() {
    let event = |n: u32| {
        format!(
            "{{\"id\":\"{:08x}\",\"type\":\"order_{}\"}}",
            n.wrapping_mul(2_654_435_761),
            n % 5
        )
    };
    let samples: Vec<_> = (0..2000).map(event).collect();
    let trained = joined(&samples).train(2048).unwrap();
    let prepared = dictionary::prepared(&trained, 3).unwrap().dictionary;
    assert_eq!(prepared.id(), dictionary::id(&trained));
    // Two bytes in each frame: its descriptor says so.
    assert!((0x8000..0x1_0000).contains(&prepared.id()));
    assert_eq!(compress_zstd(b"a", 3, Some(&prepared))[4] & 3, 2);
    let data = event(5000);
    let small = compress_zstd(data.as_bytes(), 3, Some(&prepared));
    assert!(small.len() < compress_zstd(data.as_bytes(), 3, None).len());
    assert_eq!(
        decompress_zstd(&small, Some(&prepared)).unwrap(),
        data.as_bytes()
    );
    let mismatch = Error::DictionaryMismatch(prepared.id());
    assert_eq!(decompress_zstd(&small, None), Err(mismatch));
}

#[test]
fn a_broken_dictionary_is_told() {
    let broken = [
        &0xEC30_A437_u32.to_le_bytes()[..],
        &[1, 0, 0, 0, 9, 9, 9, 9],
    ]
    .concat();
    assert_eq!(
        Dictionary::new(&broken, 3).err(),
        Some(Error::InvalidDictionary)
    );
    assert_eq!(
        Dictionary::new(&[], 3).err(),
        Some(Error::InvalidDictionary)
    );
}

/// A decoder of LZ4 blocks as the specification reads, byte by byte.
fn naive_lz4(data: &[u8]) -> Option<Vec<u8>> {
    let size = u32::from_le_bytes(*data.first_chunk::<4>()?) as usize;
    let mut rest = data[4..].iter().copied();
    let mut output = Vec::new();
    loop {
        let token = rest.next()?;
        let length = |nibble: u8, rest: &mut dyn Iterator<Item = u8>| -> Option<usize> {
            let mut length = usize::from(nibble);
            let mut goes_on = nibble == 15;
            while goes_on {
                let more = rest.next()?;
                length += usize::from(more);
                goes_on = more == 255;
            }
            Some(length)
        };
        for _ in 0..length(token >> 4, &mut rest)? {
            output.push(rest.next()?);
        }
        if rest.len() == 0 {
            return (output.len() == size).then_some(output);
        }
        let offset = usize::from(u16::from_le_bytes([rest.next()?, rest.next()?]));
        for _ in 0..length(token & 15, &mut rest)? + 4 {
            if output.len() >= size {
                return None;
            }
            output.push(*output.get(output.len().checked_sub(offset).filter(|_| offset > 0)?)?);
        }
    }
}

fn data() -> impl Strategy<Value = Vec<u8>> {
    let repeated = (prop::collection::vec(0_u8..4, 1..40), 1_usize..60)
        .prop_map(|(piece, times)| piece.repeat(times));
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300),
        prop::collection::vec(0_u8..3, 0..2000),
        repeated
    ]
}

proptest! {
    #[test]
    fn round_trips(data in data(), level in 1_i32..=22) {
        prop_assert_eq!(decompress_lz4(&compress_lz4(&data)), Ok(data.clone()));
        prop_assert_eq!(decompress_zstd(&compress_zstd(&data, level, None), None), Ok(data));
    }

    #[test]
    fn lz4_agrees_with_the_naive_decoder(data in data(), at in any::<prop::sample::Index>(), bit in 0..8, cut in any::<bool>()) {
        let mut compressed = compress_lz4(&data);
        let at = at.index(compressed.len());
        if cut { compressed.truncate(at) } else { compressed[at] ^= 1_u8 << bit }
        prop_assert_eq!(decompress_lz4(&compressed).ok(), naive_lz4(&compressed));
    }

    #[test]
    fn damaged_frames_are_refused_or_whole(data in data(), at in any::<prop::sample::Index>(), bit in 0..8) {
        let mut compressed = compress_zstd(&data, 3, None);
        let at = at.index(compressed.len());
        compressed[at] ^= 1_u8 << bit;
        if let Ok(content) = decompress_zstd(&compressed, None) {
            prop_assert_eq!(content, data);
        }
    }
}
