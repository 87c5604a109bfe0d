//! The encoder for tiny inputs against libzstd, which has to read whatever it writes, and whose sizes it is
//! compared with.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use esdb_core::archive::zstd::{self, tiny};
use esdb_core::hash;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn compress(data: &[u8], checksum: bool) -> Vec<u8> {
    let mut output = vec![0; zstd::compress_bound(data.len())];
    let written = tiny::compress(data, &mut output, checksum).unwrap();
    output.truncate(written);
    output
}

/// What libzstd reads, by itself and behind the walk over the frame.
fn decompress(frame: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(tiny::LARGEST);
    zstd_safe::decompress(&mut plain, frame).unwrap();
    let plan = zstd::plan(frame, 1 << 20, None).unwrap();
    let mut planned = vec![0; plan.most as usize];
    let size = zstd::decompress(frame, &mut planned, plan, 1 << 20, None).unwrap();
    assert_eq!(
        (plan.least, plan.most, size),
        (size as u64, size as u64, plain.len())
    );
    assert_eq!(planned, plain);
    plain
}

fn libzstd(data: &[u8], checksum: bool) -> usize {
    let mut context = zstd_safe::CCtx::create();
    let flag = zstd_safe::CParameter::ChecksumFlag(checksum);
    context.set_parameter(flag).unwrap();
    let mut output = Vec::with_capacity(zstd::compress_bound(data.len()));
    context.compress2(&mut output, data).unwrap()
}

/// Survives, and is no larger than raw bytes are in libzstd's frames. Gives the size.
fn check(data: &[u8], checksum: bool) -> usize {
    let frame = compress(data, checksum);
    assert_eq!(decompress(&frame), data);
    let header = if data.len() < 256 { 9 } else { 10 };
    assert!(frame.len() <= header + data.len() + 4 * usize::from(checksum));
    frame.len()
}

/// xorshift64*: the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 33) as usize % bound
    }

    fn byte(&mut self) -> u8 {
        (self.next() >> 56) as u8
    }
}

/// What is appended until there is enough, and how much larger than libzstd's all frames may be, in percent.
type Shape = (&'static str, fn(&mut Random, &mut Vec<u8>), usize);

const SHAPES: &[Shape] = &[
    ("constant", |_, data| data.push(7), 0),
    (
        "two symbols",
        |random, data| data.push(b'a' + u8::from(random.below(4) == 0)),
        10,
    ),
    (
        "geometric",
        |random, data| data.push(random.next().trailing_zeros() as u8),
        3,
    ),
    ("skewed", skewed, 3),
    ("random", |random, data| data.push(random.byte()), 0),
    (
        "alphabet of 40",
        |random, data| data.push(random.below(40) as u8),
        3,
    ),
    (
        "high bytes",
        |random, data| data.push(200 + random.below(20) as u8),
        3,
    ),
    ("all bytes", |_, data| data.push(data.len() as u8), 0),
    (
        "steps",
        |_, data| data.push((data.len() as u8).wrapping_mul(37)),
        0,
    ),
    ("text", text, 5),
    ("events", event, 0),
    ("periods", period, 12),
    ("pieces", pieces, 3),
    ("runs", runs, 3),
    ("counters", counters, 3),
    ("mixed", mixed, 3),
];

fn skewed(random: &mut Random, data: &mut Vec<u8>) {
    let most = random.below(256) + 1;
    data.push(random.below(most) as u8);
}

fn text(random: &mut Random, data: &mut Vec<u8>) {
    const WORDS: [&str; 16] = [
        "the",
        "of",
        "event",
        "stream",
        "and",
        "store",
        "to",
        "a",
        "replication",
        "in",
        "is",
        "cluster",
        "when",
        "written",
        "position",
        "that",
    ];
    data.extend_from_slice(WORDS[random.below(16)].as_bytes());
    data.push(b" ,.\n"[random.below(40).saturating_sub(36)]);
}

fn event(random: &mut Random, data: &mut Vec<u8>) {
    let id = format!("{:016x}{:016x}", random.next(), random.next());
    let text = format!(
        "{{\"event_id\":\"{id}\",\"event_type\":\"OrderPlaced\",\"stream_id\":\"order-{}\",\"data\":{{\"items\":{},\
         \"total\":{}}},\"metadata\":{{\"causation_id\":\"{:016x}\",\"correlation_id\":\"{id}\",\"user_id\":{}}}}}",
        random.below(500),
        random.below(9),
        random.below(90_000),
        random.next(),
        random.below(99)
    );
    data.extend_from_slice(text.as_bytes());
}

fn period(random: &mut Random, data: &mut Vec<u8>) {
    let size = (random.below(100) + 1).min(data.len());
    data.extend_from_within(data.len() - size..);
    data.push(random.byte());
}

fn pieces(random: &mut Random, data: &mut Vec<u8>) {
    let piece = Random(random.below(20) as u64 + 1).next();
    data.extend_from_slice(&piece.to_le_bytes()[..4 + (piece & 3) as usize]);
}

fn runs(random: &mut Random, data: &mut Vec<u8>) {
    let byte = random.below(20) as u8;
    data.resize(data.len() + random.below(12) + 1, byte);
}

fn counters(random: &mut Random, data: &mut Vec<u8>) {
    let last = data.last_chunk().copied().map_or(0, u32::from_le_bytes);
    data.extend_from_slice(&(last + random.below(9) as u32).to_le_bytes());
}

fn mixed(random: &mut Random, data: &mut Vec<u8>) {
    let (_, shape, _) = SHAPES[random.below(SHAPES.len() - 1)];
    let end = data.len() + random.below(200) + 1;
    while data.len() < end {
        shape(random, data);
    }
}

fn shaped(shape: &Shape, size: usize, random: &mut Random) -> Vec<u8> {
    let mut data = Vec::with_capacity(size + 400);
    while data.len() < size {
        shape.1(random, &mut data);
    }
    data.truncate(size);
    data
}

#[test]
fn every_length_of_every_shape() {
    for shape @ (name, _, percent) in SHAPES {
        let mut random = Random(0x9E37_79B9_7F4A_7C15);
        let (mut ours, mut theirs) = (0, 0);
        for size in 0..=tiny::LARGEST {
            let data = shaped(shape, size, &mut random);
            let checksum = random.below(2) == 0;
            ours += check(&data, checksum);
            theirs += libzstd(&data, checksum);
        }
        assert!(
            ours * 100 <= theirs * (100 + percent),
            "{name}: {ours} against {theirs}"
        );
    }
}

/// What decides about the tables: how often symbols occur, and which ones.
#[test]
fn every_number_of_symbols() {
    let mut random = Random(1);
    for symbols in 1..=256 {
        for size in [33, 64, 255, 256, 700, tiny::LARGEST] {
            let shift = random.byte();
            let even = |_| shift.wrapping_add(random.below(symbols) as u8);
            check(&(0..size).map(even).collect::<Vec<_>>(), false);
            let rare = |_| match random.below(8) {
                0 => random.below(symbols) as u8,
                _ => symbols as u8,
            };
            check(&(0..size).map(rare).collect::<Vec<_>>(), true);
        }
    }
}

#[test]
fn the_largest_input() {
    let mut output = vec![0; zstd::compress_bound(tiny::LARGEST + 1)];
    assert!(tiny::compress(&vec![7; tiny::LARGEST], &mut output, true).is_some());
    assert_eq!(
        tiny::compress(&vec![7; tiny::LARGEST + 1], &mut output, true),
        None
    );
    // What is larger, or wants another level, is libzstd's.
    for size in 0..=tiny::LARGEST + 2 {
        let data = vec![7; size];
        let written = zstd::compress(&data, &mut output, 3, true, None).unwrap();
        assert_eq!(decompress_any(&output[..written]), data);
    }
}

fn decompress_any(frame: &[u8]) -> Vec<u8> {
    let mut content = Vec::with_capacity(2 * tiny::LARGEST);
    zstd_safe::decompress(&mut content, frame).unwrap();
    content
}

#[test]
fn room_is_asked_for() {
    let data = [0, 1, 2, 3].repeat(100);
    let bound = zstd::compress_bound(data.len());
    let mut output = vec![0xAA; bound];
    for size in 0..bound {
        assert_eq!(tiny::compress(&data, &mut output[..size], true), None);
    }
    assert!(output.iter().all(|byte| *byte == 0xAA));
}

/// The bytes of a frame are the format's, not only what libzstd makes of them.
#[test]
fn frames_by_hand() {
    let frame = |data: &[u8], checksum| compress(data, checksum);
    assert_eq!(
        frame(b"", false),
        [0x28, 0xB5, 0x2F, 0xFD, 0x20, 0, 1, 0, 0]
    );
    let sum = (hash::xxhash64(b"ab", 0) as u32).to_le_bytes();
    let raw = [0x28, 0xB5, 0x2F, 0xFD, 0x24, 2, 0x11, 0, 0, b'a', b'b'];
    assert_eq!(frame(b"ab", true), [&raw[..], &sum].concat());
    // 300 - 256 of the same: a compressed block of four bytes; 300 repeated literals, no sequences.
    assert_eq!(
        frame(&[b'x'; 300], false),
        [
            0x28, 0xB5, 0x2F, 0xFD, 0x60, 44, 0, 0x25, 0, 0, 0xC5, 0x12, b'x', 0
        ]
    );
}

/// The forms of a frame: kind of the block; of its literals, and whether weights are direct; of its sequences.
fn forms(frame: &[u8]) -> Vec<String> {
    let at = if frame[4] >> 6 == 0 { 6 } else { 7 };
    if frame[at] >> 1 & 3 == 0 {
        return vec!["raw block".into()];
    }
    let block = &frame[at + 3..];
    let long = block[0] & 4 != 0;
    let short = if long { 2 } else { 1 };
    let count = if long {
        usize::from(u16::from_le_bytes([block[0], block[1]]) >> 4)
    } else {
        usize::from(block[0] >> 3)
    };
    let (literals, sequences) = match block[0] & 3 {
        0 => ("raw literals", short + count),
        1 => ("repeated literals", short + 1),
        _ => {
            let size = u32::from_le_bytes([block[0], block[1], block[2], 0]) >> 14;
            let direct = block[3] >= 128;
            let form = if direct {
                "direct weights"
            } else {
                "compressed weights"
            };
            (form, 3 + size as usize)
        }
    };
    let mut forms = vec![literals.into()];
    match &block[sequences..] {
        [0, ..] => forms.push("no sequences".into()),
        [count, rest @ ..] => {
            let many = *count >= 128;
            let modes = if many { rest[1] } else { rest[0] };
            forms.push(if many { "many sequences" } else { "sequences" }.into());
            for (shift, kind) in [(6, "literal lengths"), (4, "offsets"), (2, "match lengths")] {
                forms.push(format!("{kind} {}", modes >> shift & 3));
            }
        }
        [] => unreachable!(),
    }
    forms
}

#[test]
fn every_form_is_made() {
    let mut random = Random(2);
    let mut seen = BTreeSet::new();
    for shape in SHAPES {
        for size in (0..=tiny::LARGEST).step_by(3) {
            let data = shaped(shape, size, &mut random);
            seen.extend(forms(&compress(&data, false)));
        }
    }
    // A few letters, close to zero, and each record like the others.
    seen.extend(forms(&compress(
        &shaped(&("", |r, d| d.push(r.below(9) as u8), 0), 90, &mut random),
        false,
    )));
    let records = |r: &mut Random, d: &mut Vec<u8>| d.extend([r.byte(), 1, 2, 3, 4, 5, 6, 7]);
    seen.extend(forms(&compress(
        &shaped(&("", records, 0), 160, &mut random),
        false,
    )));
    let mut expected: BTreeSet<String> = [
        "raw block",
        "raw literals",
        "repeated literals",
        "direct weights",
        "compressed weights",
        "no sequences",
        "sequences",
        "many sequences",
    ]
    .map(String::from)
    .into();
    for kind in ["literal lengths", "offsets", "match lengths"] {
        expected.extend((0..3).map(|mode| format!("{kind} {mode}")));
    }
    assert_eq!(seen, expected);
}

/// Parts of an input: new bytes, or a repetition of what is there.
fn parts() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| (bytes, None)),
        prop::collection::vec(97_u8..105, 0..80).prop_map(|bytes| (bytes, None)),
        (any::<prop::sample::Index>(), 3_usize..120)
            .prop_map(|(at, size)| (Vec::new(), Some((at, size)))),
    ];
    prop::collection::vec(part, 0..40).prop_map(|parts| {
        let mut data = vec![b'.'];
        for (bytes, repetition) in parts {
            data.extend(bytes);
            if let Some((at, size)) = repetition {
                let at = at.index(data.len());
                (at..at + size).for_each(|at| data.push(data[at]));
            }
        }
        data.truncate(tiny::LARGEST);
        data
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_repeats_survives(data in parts(), checksum in any::<bool>()) {
        check(&data, checksum);
    }

    #[test]
    fn anything_survives(data in prop::collection::vec(any::<u8>(), 0..=tiny::LARGEST), checksum in any::<bool>()) {
        check(&data, checksum);
    }
}
