//! Patterns over bytes: wildcards as byte tests, regular expressions, and sets of both.
//!
//! Wildcards: `*` is any run of bytes, `?` exactly one byte, everything else is itself. A pattern is split at
//! its stars: what stands before the first must begin the text, what stands behind the last must end it, and
//! the pieces between are found from left to right, each at its first place.
//!
//! Regular expressions come as the rendering of the parser in Erlang (`esdb_regex_erl`), which has judged
//! dialect and size; a text of another origin may mean something else here than there.

use std::collections::{BTreeMap, HashMap};

use memchr::memmem::Finder;
use regex::bytes::{Regex as Engine, RegexBuilder};

/// A wildcard, made ready.
#[derive(Debug)]
pub struct Wildcard(Shape);

#[derive(Debug)]
enum Shape {
    Equals(Box<[u8]>),
    Prefix(Box<[u8]>),
    Suffix(Box<[u8]>),
    Infix(Finder<'static>),
    /// No star, but question marks.
    Exactly(Box<[u8]>),
    Pieces(Pieces),
}

#[derive(Debug)]
struct Pieces {
    first: Box<[u8]>,
    middle: Vec<Piece>,
    last: Box<[u8]>,
    /// Bytes that a text must have at least.
    least: usize,
}

/// What stands between two stars.
#[derive(Debug)]
enum Piece {
    Plain(Finder<'static>),
    Marked(Box<[u8]>),
}

impl Wildcard {
    /// Every text of bytes is a wildcard.
    #[must_use]
    pub fn new(pattern: &[u8]) -> Self {
        let mut pieces = pattern.split(|byte| *byte == b'*');
        let first = pieces.next().unwrap_or_default();
        let Some(last) = pieces.next_back() else {
            return Self(whole(first));
        };
        let middle: Vec<&[u8]> = pieces.filter(|piece| !piece.is_empty()).collect();
        Self(shape(first, &middle, last))
    }

    /// Whether the whole text matches.
    #[must_use]
    pub fn matches(&self, text: &[u8]) -> bool {
        match &self.0 {
            Shape::Equals(bytes) => text == &**bytes,
            Shape::Prefix(bytes) => text.starts_with(bytes),
            Shape::Suffix(bytes) => text.ends_with(bytes),
            Shape::Infix(finder) => finder.find(text).is_some(),
            Shape::Exactly(piece) => text.len() == piece.len() && fits(text, piece),
            Shape::Pieces(pieces) => pieces.matches(text).is_some(),
        }
    }
}

fn whole(piece: &[u8]) -> Shape {
    if is_marked(piece) {
        Shape::Exactly(piece.into())
    } else {
        Shape::Equals(piece.into())
    }
}

fn shape(first: &[u8], middle: &[&[u8]], last: &[u8]) -> Shape {
    match (first, middle, last) {
        (_, [], []) if !is_marked(first) => Shape::Prefix(first.into()),
        ([], [], _) if !is_marked(last) => Shape::Suffix(last.into()),
        ([], [piece], []) if !is_marked(piece) => Shape::Infix(Finder::new(piece).into_owned()),
        _ => Shape::Pieces(Pieces {
            first: first.into(),
            middle: middle.iter().map(|piece| Piece::new(piece)).collect(),
            last: last.into(),
            least: first.len() + last.len() + middle.iter().map(|piece| piece.len()).sum::<usize>(),
        }),
    }
}

impl Pieces {
    fn matches(&self, text: &[u8]) -> Option<()> {
        if text.len() < self.least {
            return None;
        }
        let (head, rest) = text.split_at_checked(self.first.len())?;
        let (inner, tail) = rest.split_at_checked(rest.len().checked_sub(self.last.len())?)?;
        if !fits(head, &self.first) || !fits(tail, &self.last) {
            return None;
        }
        self.middle
            .iter()
            .try_fold(inner, |rest, piece| piece.behind(rest))
            .map(|_| ())
    }
}

impl Piece {
    fn new(piece: &[u8]) -> Self {
        if is_marked(piece) {
            Self::Marked(piece.into())
        } else {
            Self::Plain(Finder::new(piece).into_owned())
        }
    }

    /// What follows the first place of this piece.
    fn behind<'a>(&self, text: &'a [u8]) -> Option<&'a [u8]> {
        let end = match self {
            Self::Plain(finder) => finder.find(text)? + finder.needle().len(),
            Self::Marked(piece) => {
                let fits_here = |window: &[u8]| fits(window, piece);
                text.windows(piece.len()).position(fits_here)? + piece.len()
            }
        };
        text.get(end..)
    }
}

fn is_marked(piece: &[u8]) -> bool {
    memchr::memchr(b'?', piece).is_some()
}

/// Of two slices of the same length.
fn fits(text: &[u8], piece: &[u8]) -> bool {
    text.iter()
        .zip(piece)
        .all(|(byte, mark)| byte == mark || *mark == b'?')
}

/// A regular expression, made ready.
#[derive(Debug)]
pub struct Regex(Engine);

/// Far above what an expression needs that the parser lets through.
const SIZE_LIMIT: usize = 64 << 20;
/// A group, what it repeats, its alternatives and their sequences: four levels for each of the 100 of the parser.
const NEST_LIMIT: u32 = 500;

impl Regex {
    /// From the rendering of the parser; `None` for what is none.
    #[must_use]
    pub fn new(rendering: &[u8]) -> Option<Self> {
        let engine = RegexBuilder::new(std::str::from_utf8(rendering).ok()?)
            .unicode(false)
            .size_limit(SIZE_LIMIT)
            .nest_limit(NEST_LIMIT)
            .build();
        engine.ok().map(Self)
    }

    /// Whether some part of the text matches.
    #[must_use]
    pub fn matches(&self, text: &[u8]) -> bool {
        self.0.is_match(text)
    }
}

/// One pattern of either kind.
#[derive(Debug)]
pub enum Test {
    /// Of the whole text.
    Wildcard(Wildcard),
    /// Of any part of the text.
    Regex(Regex),
}

impl Test {
    /// Whether the text matches.
    #[must_use]
    pub fn matches(&self, text: &[u8]) -> bool {
        match self {
            Self::Wildcard(wildcard) => wildcard.matches(text),
            Self::Regex(regex) => regex.matches(text),
        }
    }
}

/// Places in the list of patterns.
type Places = Vec<u32>;
/// Places by bytes.
type ByBytes = HashMap<Box<[u8]>, Places>;

/// Many patterns, asked at once: whole texts, beginnings and ends are looked up, and only what is left is tried
/// one by one.
#[derive(Debug, Default)]
pub struct Set {
    equals: ByBytes,
    /// By their length.
    prefixes: BTreeMap<usize, ByBytes>,
    suffixes: BTreeMap<usize, ByBytes>,
    others: Vec<(u32, Test)>,
}

impl Set {
    /// The patterns count from 0 in their order.
    #[must_use]
    pub fn new(tests: impl IntoIterator<Item = Test>) -> Self {
        let mut set = Self::default();
        for (place, test) in (0..).zip(tests) {
            set.add(place, test);
        }
        set
    }

    fn add(&mut self, place: u32, test: Test) {
        let (by_bytes, bytes) = match test {
            Test::Wildcard(Wildcard(Shape::Equals(bytes))) => (&mut self.equals, bytes),
            Test::Wildcard(Wildcard(Shape::Prefix(bytes))) => {
                (self.prefixes.entry(bytes.len()).or_default(), bytes)
            }
            Test::Wildcard(Wildcard(Shape::Suffix(bytes))) => {
                (self.suffixes.entry(bytes.len()).or_default(), bytes)
            }
            other => return self.others.push((place, other)),
        };
        by_bytes.entry(bytes).or_default().push(place);
    }

    /// The places of the patterns that match, ascending.
    #[must_use]
    pub fn matching(&self, text: &[u8]) -> Places {
        let mut places = self.equals.get(text).cloned().unwrap_or_default();
        let parts = |sizes: &BTreeMap<usize, ByBytes>, part: fn(&[u8], usize) -> Option<&[u8]>| {
            let known =
                |(size, by_bytes): (&usize, &ByBytes)| by_bytes.get(part(text, *size)?).cloned();
            sizes
                .range(..=text.len())
                .filter_map(known)
                .flatten()
                .collect::<Places>()
        };
        places.extend(parts(&self.prefixes, |text, size| text.get(..size)));
        places.extend(parts(&self.suffixes, |text, size| {
            text.get(text.len().checked_sub(size)?..)
        }));
        let others = self.others.iter().filter(|(_, test)| test.matches(text));
        places.extend(others.map(|(place, _)| *place));
        places.sort_unstable();
        places
    }
}
