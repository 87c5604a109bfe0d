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
use regex_automata::Anchored;
use regex_automata::dfa::{Automaton, StartKind, dense};
use regex_automata::nfa::thompson;
use regex_automata::util::{primitives::StateID, start, syntax};

/// A wildcard, made ready.
#[derive(Debug)]
pub struct Wildcard(Shape);

#[derive(Debug)]
enum Shape {
    Equals(Box<[u8]>),
    Prefix(Box<[u8]>),
    Suffix(Box<[u8]>),
    Infix(Box<Finder<'static>>),
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
    /// Of the pieces between with question marks.
    longest_marked: usize,
}

/// What stands between two stars.
#[derive(Debug)]
enum Piece {
    Plain(Box<Finder<'static>>),
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

    /// About how many nanoseconds it takes to make a pattern ready: its stars are what does.
    #[must_use]
    pub fn steps_to_make(pattern: &[u8]) -> usize {
        if pattern.len() > LONG_PATTERN {
            return usize::MAX;
        }
        let stars = memchr::memchr_iter(b'*', pattern).count();
        pattern.len() + stars * A_PIECE
    }

    /// About how many nanoseconds a text of this length takes at most.
    #[inline]
    #[must_use]
    pub fn steps(&self, length: usize) -> usize {
        match &self.0 {
            Shape::Equals(bytes)
            | Shape::Prefix(bytes)
            | Shape::Suffix(bytes)
            | Shape::Exactly(bytes) => length.min(bytes.len()),
            Shape::Infix(_) => length,
            Shape::Pieces(pieces) => pieces.steps(length),
        }
    }
}

/// To make a piece ready; above this length nobody counts them.
const A_PIECE: usize = 500;
const LONG_PATTERN: usize = 64 << 10;
/// To find a piece, besides its bytes.
const TO_FIND: usize = 40;

/// A text and a pattern so long together are compared as they stand: making the pattern ready would cost more.
const AT_ONCE: usize = 4096;

/// Whether a text and a pattern are as short as that.
#[must_use]
pub fn is_short(pattern: &[u8], text: &[u8]) -> bool {
    // A pattern for no text, or a text for none, may be of any length.
    pattern.len().max(1).saturating_mul(text.len().max(1)) <= AT_ONCE
}

/// Whether the whole text matches the wildcard that is `pattern`, of which nothing is kept.
#[must_use]
pub fn wildcard_matches(pattern: &[u8], text: &[u8]) -> bool {
    if is_short(pattern, text) {
        matches_at_once(pattern, text)
    } else {
        Wildcard::new(pattern).matches(text)
    }
}

/// Byte by byte; where that fails, the last star takes one byte more. A star before it never has to: what stands
/// between the two was found at its first place.
fn matches_at_once(pattern: &[u8], text: &[u8]) -> bool {
    let (mut pattern, mut text) = (pattern, text);
    let mut star: Option<(&[u8], &[u8])> = None;
    while let Some((byte, tail)) = text.split_first() {
        match pattern.split_first() {
            Some((b'*', [])) => return true,
            Some((b'*', rest)) => {
                star = Some((rest, text));
                pattern = rest;
            }
            Some((mark, rest)) if mark == byte || *mark == b'?' => (pattern, text) = (rest, tail),
            _ => {
                let Some((behind, [_, from @ ..])) = star else {
                    return false;
                };
                star = Some((behind, from));
                (pattern, text) = (behind, from);
            }
        }
    }
    pattern.iter().all(|mark| *mark == b'*')
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
        ([], [piece], []) if !is_marked(piece) => Shape::Infix(finder(piece)),
        _ => Shape::Pieces(Pieces {
            first: first.into(),
            middle: middle.iter().map(|piece| Piece::new(piece)).collect(),
            last: last.into(),
            least: first.len() + last.len() + middle.iter().map(|piece| piece.len()).sum::<usize>(),
            longest_marked: (middle.iter().filter(|piece| is_marked(piece)))
                .map(|piece| piece.len())
                .max()
                .unwrap_or_default(),
        }),
    }
}

impl Pieces {
    /// Only a piece with question marks is compared at each place.
    fn steps(&self, length: usize) -> usize {
        if length < self.least {
            return 0;
        }
        let finding = TO_FIND * self.middle.len();
        finding.saturating_add(length.saturating_mul(1 + self.longest_marked))
    }

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
            Self::Plain(finder(piece))
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

fn finder(piece: &[u8]) -> Box<Finder<'static>> {
    Box::new(Finder::new(piece).into_owned())
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
pub struct Regex {
    engine: Engine,
    table: Option<Box<Table>>,
    size: usize,
}

/// What the parser lets through.
const LARGEST: usize = 10_000;
/// What one instruction costs where the engine makes a state of its automaton for a byte, measured.
const AN_INSTRUCTION: usize = 25;

/// Far above what an expression needs that the parser lets through.
const SIZE_LIMIT: usize = 64 << 20;
/// A group, what it repeats, its alternatives and their sequences: four levels for each of the 100 of the parser.
const NEST_LIMIT: u32 = 500;

/// With so many groups an expression is made on the stack of the caller.
const SHALLOW: usize = 8;
const STACK: usize = 16 << 20;

fn engine(text: &str) -> Option<Engine> {
    RegexBuilder::new(text)
        .unicode(false)
        .size_limit(SIZE_LIMIT)
        .nest_limit(NEST_LIMIT)
        .build()
        .ok()
}

impl Regex {
    /// From the rendering of the parser; `None` for what is none.
    #[must_use]
    pub fn new(rendering: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(rendering).ok()?;
        let groups = rendering.iter().filter(|byte| **byte == b'(').count();
        if groups <= SHALLOW {
            return Self::made(text);
        }
        // The crate's compiler calls itself for each level: more than the stack of a scheduler may have room for.
        std::thread::scope(|scope| {
            let builder = std::thread::Builder::new().stack_size(STACK);
            let thread = builder.spawn_scoped(scope, || Self::made(text)).ok()?;
            thread.join().ok().flatten()
        })
    }

    fn made(text: &str) -> Option<Self> {
        let engine = engine(text)?;
        let table = Table::new(text).map(Box::new);
        Some(Self {
            engine,
            table,
            size: LARGEST,
        })
    }

    /// Told its size by the parser; else it counts as the largest there may be.
    #[must_use]
    pub fn sized(self, size: usize) -> Self {
        Self { size, ..self }
    }

    /// About how many nanoseconds a text of this length takes at most. Where no table bounds the automaton,
    /// each byte may lead to a state that has to be made.
    #[inline]
    #[must_use]
    pub fn steps(&self, length: usize) -> usize {
        match &self.table {
            Some(_) => 2 * length,
            None => self.making(length),
        }
    }

    /// What the engine may need besides, once: the states that the table has, too.
    #[must_use]
    pub fn steps_to_begin(&self) -> usize {
        match &self.table {
            Some(table) => self.making(table.states()),
            None => 0,
        }
    }

    fn making(&self, states: usize) -> usize {
        states.saturating_mul(AN_INSTRUCTION * (1 + self.size))
    }

    /// Whether some part of the text matches.
    #[inline]
    #[must_use]
    pub fn matches(&self, text: &[u8]) -> bool {
        match &self.table {
            Some(table) if text.len() <= SHORT_TEXT => table.matches(text),
            _ => self.engine.is_match(text),
        }
    }
}

/// In longer texts the engine skips to where a match may be, which makes up for what it costs to start it.
pub const SHORT_TEXT: usize = 96;
/// Expressions with so long a rendering, and so large a table, have one: it is made in a fraction of a millisecond.
const SHORT_RENDERING: usize = 256;
const TABLE_LIMIT: usize = 32 << 10;

/// The whole automaton of a small expression: a step for each byte, and no state of the search to fetch and to
/// give back, which for a name of a stream is most of what the engine does.
#[derive(Debug)]
struct Table {
    automaton: dense::DFA<Vec<u32>>,
    first: StateID,
}

impl Table {
    fn states(&self) -> usize {
        self.automaton.memory_usage() / (size_of::<u32>() * self.automaton.stride())
    }

    fn new(text: &str) -> Option<Self> {
        if text.len() > SHORT_RENDERING {
            return None;
        }
        let limits = dense::Config::new()
            .start_kind(StartKind::Unanchored)
            .accelerate(false)
            .dfa_size_limit(Some(TABLE_LIMIT))
            .determinize_size_limit(Some(4 * TABLE_LIMIT));
        let syntax = syntax::Config::new().unicode(false).utf8(false);
        let nfa = thompson::Config::new().utf8(false);
        let automaton = dense::Builder::new()
            .configure(limits)
            .syntax(syntax.nest_limit(NEST_LIMIT))
            .thompson(nfa.nfa_size_limit(Some(TABLE_LIMIT)))
            .build(text)
            .ok()?;
        let first = start::Config::new().anchored(Anchored::No);
        let first = automaton.start_state(&first).ok()?;
        Some(Self { automaton, first })
    }

    /// A state tells of a match one byte late.
    ///
    /// Not inlined: in the larger loops around it the compiler has no registers left for this one, and it takes
    /// half as long again.
    #[inline(never)]
    fn matches(&self, text: &[u8]) -> bool {
        let mut state = self.first;
        for byte in text {
            state = self.automaton.next_state(state, *byte);
            if self.automaton.is_special_state(state) {
                if self.automaton.is_match_state(state) {
                    return true;
                }
                if self.automaton.is_dead_state(state) {
                    return false;
                }
            }
        }
        self.automaton
            .is_match_state(self.automaton.next_eoi_state(state))
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

    /// About how many nanoseconds a text of this length takes at most.
    #[inline]
    #[must_use]
    pub fn steps(&self, length: usize) -> usize {
        match self {
            Self::Wildcard(wildcard) => wildcard.steps(length),
            Self::Regex(regex) => regex.steps(length),
        }
    }

    /// What the first text that is longer than [`SHORT_TEXT`] may take besides.
    #[must_use]
    pub fn steps_to_begin(&self) -> usize {
        match self {
            Self::Wildcard(_) => 0,
            Self::Regex(regex) => regex.steps_to_begin(),
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
    /// How many places a text can have.
    most: usize,
}

/// To look bytes up, besides the bytes.
const A_LOOKUP: usize = 40;
/// For each pattern that is tried, and for each that matches.
const A_PLACE: usize = 20;

/// The most places that one text can have of these.
fn most(by_bytes: &ByBytes) -> usize {
    by_bytes.values().map(Vec::len).max().unwrap_or_default()
}

impl Set {
    /// The patterns count from 0 in their order.
    #[must_use]
    pub fn new(tests: impl IntoIterator<Item = Test>) -> Self {
        let mut set = Self::default();
        for (place, test) in (0..).zip(tests) {
            set.add(place, test);
        }
        let tables = set.prefixes.values().chain(set.suffixes.values());
        set.most = most(&set.equals) + tables.map(most).sum::<usize>() + set.others.len();
        set
    }

    /// About how many nanoseconds a text of this length takes at most.
    #[must_use]
    pub fn steps(&self, length: usize) -> usize {
        let sizes = [&self.prefixes, &self.suffixes].into_iter();
        let looked_up: usize = sizes
            .flat_map(|by_size| by_size.range(..=length))
            .map(|(size, _)| size + A_LOOKUP)
            .sum();
        let tried = self.others.iter().map(|(_, test)| test.steps(length));
        tried.fold(
            length + A_LOOKUP + looked_up + A_PLACE * self.most,
            usize::saturating_add,
        )
    }

    /// What the first text that is longer than [`SHORT_TEXT`] may take besides.
    #[must_use]
    pub fn steps_to_begin(&self) -> usize {
        let tried = self.others.iter().map(|(_, test)| test.steps_to_begin());
        tried.fold(0, usize::saturating_add)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn naive(text: &[u8], pattern: &[u8]) -> bool {
        match (text.split_first(), pattern.split_first()) {
            (_, Some((b'*', rest))) => (0..=text.len())
                .filter_map(|at| text.get(at..))
                .any(|tail| naive(tail, rest)),
            (Some((byte, tail)), Some((mark, rest))) => {
                (byte == mark || *mark == b'?') && naive(tail, rest)
            }
            (None, None) => true,
            _ => false,
        }
    }

    fn expression() -> impl Strategy<Value = String> {
        let one = prop::sample::select(vec![
            "a", "b", "ab", ".", "[^a]", "\\n", "^", "\\A", "$", "\\z", "\\b", "\\B", "(?m:^)",
            "(?m:$)",
        ]);
        one.prop_map(String::from).prop_recursive(3, 8, 3, |part| {
            let counts = prop::sample::select(vec!["*", "+", "?", "{2}", "{1,3}"]);
            prop_oneof![
                (part.clone(), part.clone()).prop_map(|(left, right)| left + &right),
                (part.clone(), part.clone())
                    .prop_map(|(left, right)| format!("(?:{left}|{right})")),
                (part, counts).prop_map(|(part, count)| format!("(?:{part}){count}")),
            ]
        })
    }

    proptest! {
        #[test]
        fn wildcards_are_the_naive_ones(text in "[ab]{0,10}", pattern in "[ab*?]{0,8}") {
            let (text, pattern) = (text.as_bytes(), pattern.as_bytes());
            let expected = naive(text, pattern);
            prop_assert_eq!(Wildcard::new(pattern).matches(text), expected);
            prop_assert_eq!(wildcard_matches(pattern, text), expected);
        }

        #[test]
        fn a_table_is_its_engine(text in "[ab\n]{0,12}", pattern in expression()) {
            let regex = Regex::new(pattern.as_bytes());
            let answers = regex.map(|regex| {
                let by_table = regex.table.as_ref().map(|table| table.matches(text.as_bytes()));
                (by_table, regex.engine.is_match(text.as_bytes()))
            });
            prop_assert!(answers.is_some_and(|(table, engine)| table == Some(engine)));
        }

        #[test]
        fn a_set_is_its_patterns(
            text in "[ab]{0,6}",
            patterns in proptest::collection::vec("[ab*?]{0,4}", 0..12),
        ) {
            let test = |pattern: &String| Test::Wildcard(Wildcard::new(pattern.as_bytes()));
            let matching: Vec<u32> = (0..)
                .zip(&patterns)
                .filter(|(_, pattern)| naive(text.as_bytes(), pattern.as_bytes()))
                .map(|(place, _)| place)
                .collect();
            let set = Set::new(patterns.iter().map(test));
            prop_assert_eq!(set.matching(text.as_bytes()), matching);
        }
    }

    #[test]
    fn expressions_are_over_bytes() {
        let regex = |text: &[u8]| Regex::new(text);
        assert!(regex(b"\\A[\\x80-\\xFF]\\z").is_some_and(|regex| regex.matches(&[0xFF])));
        assert!(regex(b"[^\\x00-\\xFF]").is_some_and(|regex| !regex.matches(b"a")));
        assert!(regex(b"(").is_none() && regex(&[0xFF]).is_none());
    }

    #[test]
    fn the_deepest_expression_is_made() {
        let deep = format!("{}a{}", "(?:".repeat(100), "|b)+".repeat(100));
        assert!(Regex::new(deep.as_bytes()).is_some_and(|regex| regex.matches(b"a")));
    }
}
