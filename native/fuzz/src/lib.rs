//! What is fuzzed: each function takes any bytes, must come back, and checks what holds for all of them.

use esdb_core::archive::{dictionary, lz4, zstd};
use esdb_core::crypto::{self, base58, ed25519};
use esdb_core::etf;
use esdb_core::hash;
use esdb_core::pattern::{Regex, Set, Test, Wildcard, wildcard_matches};
use esdb_core::predicate::Predicate;
use esdb_core::query::{self, Aggregate, Source};
use esdb_core::runs;
use esdb_core::segment::{Path, Sections, Segment};
use std::collections::BTreeSet;
use std::num::NonZeroUsize;

/// What a target says that is started without a fuzzer.
pub const HOW_TO_RUN: &str = "a fuzz target: see scripts/fuzz.sh; cargo test is a replay";

/// A name, as in `corpus/`, and what to do with an input.
pub type Target = (&'static str, fn(&[u8]));

/// All targets; `tests/replay.rs` goes through them.
pub const TARGETS: &[Target] = &[
    ("base58", base58),
    ("base64", base64),
    ("ed25519", ed25519),
    ("hash", hash),
    ("lz4", lz4),
    ("pattern", pattern),
    ("predicate", predicate),
    ("runs", runs),
    ("segment", segment),
    ("zstd", zstd),
    ("zstd_dictionary", zstd_dictionary),
    ("zstd_tiny", zstd_tiny),
];

/// What decodes is encoded by the same text, and all data survives.
pub fn base58(input: &[u8]) {
    match base58::decode(input) {
        Ok(data) if data.len() <= base58::MAX_BYTES => {
            assert_eq!(base58::encode(&data).as_deref(), Ok(input))
        }
        Ok(data) => assert_eq!(base58::encode(&data), Err(base58::Base58Error::TooLarge)),
        Err(base58::Base58Error::TooLarge) => assert!(input.len() > base58::MAX_TEXT),
        Err(base58::Base58Error::InvalidChar(character)) => assert!(input.contains(&character)),
    }
    if let Ok(text) = base58::encode(input) {
        assert_eq!(base58::decode(&text).as_deref(), Ok(input));
    }
}

/// What decodes is encoded by the same text, and all data survives.
pub fn base64(input: &[u8]) {
    let mut data = vec![0; crypto::base64_decoded_len(input.len())];
    if crypto::base64_decode(input, &mut data) {
        assert_eq!(base64_text(&data), input);
    }
    let text = base64_text(input);
    let mut data = vec![0; input.len()];
    assert!(crypto::base64_decode(&text, &mut data));
    assert_eq!(data, input);
}

fn base64_text(data: &[u8]) -> Vec<u8> {
    let mut text = vec![0; crypto::base64_encoded_len(data.len()).expect("fits into memory")];
    assert!(crypto::base64_encode(data, &mut text));
    text
}

/// Plain, prepared and batched verification agree: on a key and a signature as they come, and on a true
/// signature with the input's bytes laid over it.
pub fn ed25519(input: &[u8]) {
    let Some((head, message)) = input.split_at_checked(96) else {
        return;
    };
    let (key, signature) = head.split_at(32);
    agree(message, signature, key);

    let secret: [u8; 32] = key.try_into().expect("32 bytes");
    let signed = ed25519::sign(message, &secret);
    let flipped: Vec<u8> = signed.iter().zip(signature).map(|(a, b)| a ^ b).collect();
    agree(message, &flipped, key);
}

fn agree(message: &[u8], signature: &[u8], key: &[u8]) {
    let plain = ed25519::verify(message, signature, key);
    let prepared = ed25519::PreparedKey::new(key);
    assert_eq!(
        prepared
            .as_ref()
            .is_some_and(|key| key.verify(message, signature)),
        plain
    );
    // Four times by its bytes, which the batch decodes once, and once prepared.
    let item = |key| ed25519::Item {
        message,
        signature,
        key,
    };
    let mut items: Vec<_> = (0..4)
        .map(|_| item(ed25519::ItemKey::Encoded(key)))
        .collect();
    items.extend(
        prepared
            .iter()
            .map(|key| item(ed25519::ItemKey::Prepared(key))),
    );
    assert!(
        ed25519::verify_batch(&items)
            .into_iter()
            .all(|answer| answer == plain)
    );
    assert_eq!(ed25519::verify_batch(&items[..1]), [plain]);
}

/// A hash in pieces is the hash of the whole. The first byte says where to cut.
pub fn hash(input: &[u8]) {
    let Some((cut, data)) = input.split_first() else {
        return;
    };
    let (left, right) = data.split_at(usize::from(*cut) * data.len() / 255);
    let mut state = hash::Xxh3::new(u64::from(*cut));
    state.update(left);
    let before = state.clone();
    state.update(right);
    assert_eq!(state.digest(), hash::xxhash3_seeded(data, u64::from(*cut)));
    assert_eq!(before.digest(), hash::xxhash3_seeded(left, u64::from(*cut)));
    let whole = [left, &[0], right].concat();
    let partitions = std::num::NonZeroU32::MIN.saturating_add(u32::from(*cut));
    assert_eq!(
        hash::stream_partition(left, right, partitions),
        hash::partition(&whole, partitions)
    );
}

/// More content than that is none of a fuzzer's business.
const MAX_CONTENT: u64 = 1 << 22;

/// What decodes has the size that was stated, and survives being compressed again; any data does.
pub fn lz4(input: &[u8]) {
    if let Ok(size) = lz4::content_size(input, MAX_CONTENT) {
        assert!(size as u64 <= MAX_CONTENT && size <= input.len() * 255);
        let mut content = vec![0; size];
        if lz4::decompress(input, &mut content).is_ok() {
            lz4_survives(&content);
        }
    }
    lz4_survives(input);
}

fn lz4_survives(data: &[u8]) {
    let mut compressed = vec![0; lz4::compress_bound(data.len())];
    let written = lz4::compress(data, &mut compressed).expect("fits");
    compressed.truncate(written);
    let size = lz4::content_size(&compressed, data.len() as u64);
    assert_eq!(size, Ok(data.len()));
    let mut content = vec![0; data.len()];
    assert_eq!(lz4::decompress(&compressed, &mut content), Ok(()));
    assert_eq!(content, data);
}

/// Patterns with newlines between them, a bar and a text: wildcards and a set of them answer what comparing each
/// place with each answers; what renders an expression is one, and says what its tree says; no other text of an
/// expression does harm. Counted repetitions of those are left out: how large they may be is the parser's business.
pub fn pattern(input: &[u8]) {
    let mut parts = input.rsplitn(2, |byte| *byte == b'|');
    let text = parts.next().unwrap_or_default();
    let text = &text[..text.len().min(200)];
    let pattern = parts.next().unwrap_or_default();
    let patterns: Vec<&[u8]> = pattern.split(|byte| *byte == b'\n').take(16).collect();
    let mut matching = Vec::new();
    for (place, each) in (0..).zip(&patterns) {
        let expected = wildcard_naively(each, text);
        assert_eq!(Wildcard::new(each).matches(text), expected);
        assert_eq!(wildcard_matches(each, text), expected);
        matching.extend(expected.then_some(place));
    }
    let tests = patterns
        .iter()
        .map(|each| Test::Wildcard(Wildcard::new(each)));
    assert_eq!(Set::new(tests).matching(text), matching);
    assert!(wildcard_matches(&[text, b"*"].concat(), text));

    let tree = Tree::read(&mut pattern.iter().copied(), 3);
    let mut rendering = String::new();
    tree.render(&mut rendering);
    let regex = Regex::new(rendering.as_bytes()).expect("a rendering");
    let expected = (0..=text.len()).any(|from| !tree.ends(from, text).is_empty());
    assert_eq!(regex.matches(text), expected, "{rendering}");
    if !pattern.contains(&b'{') {
        if let Some(regex) = Regex::new(pattern) {
            assert!(regex.matches(text) || !pattern.is_empty());
        }
    }
}

/// Which beginnings of the text the pattern matches, byte by byte of the pattern.
fn wildcard_naively(pattern: &[u8], text: &[u8]) -> bool {
    let mut matched = vec![false; text.len() + 1];
    matched[0] = true;
    for mark in pattern {
        if *mark == b'*' {
            let first = matched.iter().position(|matched| *matched);
            (first.unwrap_or(matched.len())..matched.len()).for_each(|at| matched[at] = true);
        } else {
            for at in (0..text.len()).rev() {
                matched[at + 1] = matched[at] && (*mark == b'?' || *mark == text[at]);
            }
            matched[0] = false;
        }
    }
    matched[text.len()]
}

/// An expression, as the parser in Erlang would have read it.
enum Tree {
    Class(u8, u8),
    Start,
    End,
    Word(bool),
    Both(Box<Tree>, Box<Tree>),
    Either(Box<Tree>, Box<Tree>),
    Repeated(Box<Tree>, usize, Option<usize>),
}

impl Tree {
    fn read(bytes: &mut impl Iterator<Item = u8>, depth: usize) -> Self {
        let mut next = |limit: u8| bytes.next().unwrap_or_default() % limit;
        match next(if depth == 0 { 5 } else { 9 }) {
            0 | 1 => {
                let first = bytes.next().unwrap_or(b'a');
                Self::Class(first, first)
            }
            2 => {
                let (one, other) = (bytes.next().unwrap_or(b'a'), bytes.next().unwrap_or(b'z'));
                Self::Class(one.min(other), one.max(other))
            }
            3 => [Self::Start, Self::End]
                .into_iter()
                .nth(next(2).into())
                .expect("two"),
            4 => Self::Word(next(2) == 0),
            5 | 6 => {
                let left = Self::read(bytes, depth - 1);
                Self::Both(Box::new(left), Box::new(Self::read(bytes, depth - 1)))
            }
            7 => {
                let left = Self::read(bytes, depth - 1);
                Self::Either(Box::new(left), Box::new(Self::read(bytes, depth - 1)))
            }
            _ => {
                let least = next(3).into();
                let most = Some(least + usize::from(next(3))).filter(|most| *most > 0);
                Self::Repeated(Box::new(Self::read(bytes, depth - 1)), least, most)
            }
        }
    }

    fn render(&self, out: &mut String) {
        match self {
            Self::Class(first, last) => *out += &format!("[\\x{first:02X}-\\x{last:02X}]"),
            Self::Start => *out += "\\A",
            Self::End => *out += "\\z",
            Self::Word(true) => *out += "\\b",
            Self::Word(false) => *out += "\\B",
            Self::Both(left, right) => {
                left.render(out);
                right.render(out);
            }
            Self::Either(left, right) => {
                *out += "(?:";
                left.render(out);
                *out += "|";
                right.render(out);
                *out += ")";
            }
            Self::Repeated(tree, least, most) => {
                *out += "(?:";
                tree.render(out);
                match most {
                    Some(most) => *out += &format!("){{{least},{most}}}"),
                    None => *out += &format!("){{{least},}}"),
                }
            }
        }
    }

    /// Where a match that begins here can end.
    fn ends(&self, at: usize, text: &[u8]) -> BTreeSet<usize> {
        let is_word = |byte: Option<&u8>| {
            byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
        };
        let here = |is_so: bool| is_so.then_some(at).into_iter().collect();
        match self {
            Self::Class(first, last) => {
                let fits = text
                    .get(at)
                    .is_some_and(|byte| (first..=last).contains(&byte));
                fits.then_some(at + 1).into_iter().collect()
            }
            Self::Start => here(at == 0),
            Self::End => here(at == text.len()),
            Self::Word(asked) => {
                let before = at.checked_sub(1).and_then(|before| text.get(before));
                here((is_word(before) != is_word(text.get(at))) == *asked)
            }
            Self::Both(left, right) => right.behind_each(&left.ends(at, text), text),
            Self::Either(left, right) => &left.ends(at, text) | &right.ends(at, text),
            Self::Repeated(tree, least, most) => {
                let mut places = BTreeSet::from([at]);
                let mut ends = BTreeSet::new();
                // More rounds than the text is long bring nothing new.
                for round in 0..=most.unwrap_or(least + text.len()) {
                    if round >= *least {
                        ends.extend(&places);
                    }
                    places = tree.behind_each(&places, text);
                }
                ends
            }
        }
    }

    fn behind_each(&self, places: &BTreeSet<usize>, text: &[u8]) -> BTreeSet<usize> {
        places.iter().flat_map(|at| self.ends(*at, text)).collect()
    }
}

/// The walk over the frames bounds what the decoder writes.
pub fn zstd(input: &[u8]) {
    zstd_content(input, None);
    let mut compressed = vec![0; zstd::compress_bound(input.len())];
    let written = zstd::compress(input, &mut compressed, 3, true, None).expect("fits");
    compressed.truncate(written);
    assert_eq!(zstd_content(&compressed, None).as_deref(), Some(input));
}

/// The first half is a dictionary, the second a frame that may use it.
pub fn zstd_dictionary(input: &[u8]) {
    let (bytes, frame) = input.split_at(input.len() / 2);
    if let Ok(dictionary) = dictionary::Dictionary::new(bytes, zstd::DEFAULT_LEVEL) {
        zstd_content(frame, Some(&dictionary));
        let mut compressed = vec![0; zstd::compress_bound(frame.len())];
        let written = zstd::compress(frame, &mut compressed, 3, true, Some(&dictionary));
        compressed.truncate(written.expect("fits"));
        let content = zstd_content(&compressed, Some(&dictionary));
        assert_eq!(content.as_deref(), Some(frame));
    }
}

/// libzstd reads what the encoder for tiny inputs writes, which is no larger than the bytes in a raw block. The
/// first byte says whether with a checksum.
pub fn zstd_tiny(input: &[u8]) {
    let Some((choice, data)) = input.split_first() else {
        return;
    };
    let data = &data[..data.len().min(zstd::tiny::LARGEST)];
    let mut compressed = vec![0; zstd::compress_bound(data.len())];
    let written = zstd::tiny::compress(data, &mut compressed, choice & 1 == 1).expect("tiny");
    assert!(written <= data.len() + 14);
    compressed.truncate(written);
    assert_eq!(zstd_content(&compressed, None).as_deref(), Some(data));
}

fn zstd_content(input: &[u8], dictionary: Option<&dictionary::Dictionary>) -> Option<Vec<u8>> {
    let plan = zstd::plan(input, MAX_CONTENT, dictionary).ok()?;
    assert!(plan.least <= plan.most && plan.least <= MAX_CONTENT);
    let mut content = Vec::new();
    let written = zstd::decompress(input, &mut content, plan, MAX_CONTENT, dictionary).ok()?;
    assert!((plan.least..=plan.most).contains(&(written as u64)));
    content.truncate(written);
    Some(content)
}

/// `{data, [a]}` and `{event, [version]}`, behind their version bytes.
const PATHS: [&[u8]; 2] = [
    b"\x83h\x02w\x04datal\0\0\0\x01w\x01aj",
    b"\x83h\x02w\x05eventl\0\0\0\x01w\x07versionj",
];

/// Two events to ask: `#{data => #{a => 1}}` and one with nothing.
fn two_events() -> Vec<u8> {
    let data = b"\x83t\0\0\0\x01w\x01a\x61\x01";
    let size = (data.len() as u32).to_le_bytes();
    sealed(2, 7, &[&size, &size, &data[..]].concat())
}

/// A segment of one stored section, with right checksums whatever is in it.
fn sealed(count: u32, id: u8, section: &[u8]) -> Vec<u8> {
    let mut bytes = b"ESDS\x01\0\x01\0".to_vec();
    bytes.extend(count.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend([id, 0, 0, 0, 0, 0, 0, 0]);
    for number in [64, section.len() as u64, section.len() as u64] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend(hash::xxhash3(section).to_le_bytes());
    bytes.extend(hash::xxhash3(&bytes).to_le_bytes());
    bytes.extend(section);
    bytes
}

/// What decodes as a predicate has an answer, and every answer says the same.
pub fn predicate(input: &[u8]) {
    let Some(predicate) = Predicate::decode(input) else {
        return;
    };
    assert!(etf::Term::whole(input).is_ok());
    agreed(&two_events(), &predicate);
}

/// The number of matches is that of the indices, and that of the events of the segment that is filtered, all of
/// which match.
fn agreed(bytes: &[u8], predicate: &Predicate) {
    let source = source(bytes);
    let one = NonZeroUsize::MIN;
    let count = query::counted(&[source], predicate, one);
    let found = query::matching(&[source], predicate, None, one);
    assert_eq!(count, found.map(|found| found.iter().map(Vec::len).sum()));
    if let (Ok(count), Ok(filtered)) = (count, query::filtered(&[source], predicate, one)) {
        let segment = Segment::open(&filtered, None).expect("just written");
        assert_eq!(segment.count(), count);
        assert!(segment.contents(Sections::ALL).is_ok());
        let again = query::counted(&[self::source(&filtered)], predicate, one);
        assert_eq!(again, Ok(count));
    }
}

fn source(bytes: &[u8]) -> Source<'_> {
    Source {
        bytes,
        dictionary: None,
    }
}

/// A run is its records in order, and so are two merged. The first bytes say how wide they are and where to cut.
pub fn runs(input: &[u8]) {
    let Some(([width, cut], bytes)) = input.split_first_chunk() else {
        return;
    };
    let width = 1 + usize::from(*width) % runs::MAX_WIDTH;
    let bytes = &bytes[..bytes.len() / width * width];
    let mut expected: Vec<&[u8]> = bytes.chunks(width).collect();
    expected.sort_unstable();
    let expected = expected.concat();
    assert_eq!(run(bytes, width), expected);

    let cut = usize::from(*cut) * (bytes.len() / width) / 255 * width;
    let (left, right) = bytes.split_at(cut);
    let parts = [run(left, width), run(right, width)];
    let mut merged = vec![0; bytes.len()];
    assert_eq!(
        runs::merge(&[&parts[0], &parts[1]], width, &mut merged),
        Ok(())
    );
    assert_eq!(merged, expected);
}

fn run(records: &[u8], width: usize) -> Vec<u8> {
    let mut sorted = vec![0; records.len()];
    assert_eq!(runs::sort(records, width, &mut sorted), Ok(()));
    sorted
}

/// As a whole segment, and as the content of each section with right checksums.
pub fn segment(input: &[u8]) {
    asked(input);
    let Some((&[id, count], section)) = input.split_first_chunk() else {
        return;
    };
    asked(&sealed(count.into(), id % 9 + 1, section));
}

fn asked(bytes: &[u8]) {
    let sources = [source(bytes)];
    let one = NonZeroUsize::MIN;
    let paths = PATHS.map(|path| Path::decode(path).expect("a path"));
    // `{exists, {data, [a]}}`.
    let exists = [b"\x83h\x02w\x06exists", &PATHS[0][1..]].concat();
    agreed(bytes, &Predicate::decode(&exists).expect("a predicate"));
    let count = Aggregate::decode(b"\x83l\0\0\0\x01w\x05countj").expect("aggregates");
    for path in &paths {
        if let Ok(groups) = query::grouped(&sources, path, &count, one, usize::MAX) {
            let keys: std::collections::HashSet<_> =
                groups.iter().map(|group| &group.key).collect();
            assert_eq!(keys.len(), groups.len());
        }
    }
    let mut values = 0;
    let rows = query::projected(sources[0], &paths, |_, _| {
        values += 1;
        Ok::<_, esdb_core::segment::Error>(())
    });
    if let Ok(rows) = rows {
        assert_eq!(values, rows * paths.len());
    }
    let _ = query::folded(&sources, [], usize::MAX);
}
