//! Predicates over the events of packed segments.
//!
//! A predicate comes in its canonical form, an external term, and becomes a list of tests, each with the test to
//! go on with when it holds and when it does not: `and`, `or` and `not` are nothing but these targets. So it is
//! evaluated from left to right, stops where the answer is known, and no depth of nesting takes any stack.

use crate::etf::{Kind, Reader, Term};
use crate::number::Number;
use crate::segment::{Error, Events, Path, Sections, Value, found};
use std::cmp::Ordering;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

/// A predicate, ready to be asked.
pub struct Predicate {
    steps: Vec<Step>,
    sections: Sections,
}

struct Step {
    test: Test,
    /// Where it goes on when the test fails, and when it holds.
    targets: [usize; 2],
}

/// Targets that are no step: the answers. What is not among the steps is an answer.
const NO: usize = usize::MAX - 1;
const YES: usize = usize::MAX;

enum Test {
    Constant(bool),
    Field(Path, Question),
}

enum Question {
    Exists,
    Equal(Literal),
    NotEqual(Literal),
    In(Vec<Literal>),
    AnyOf(Vec<Literal>),
    /// In this order to the limit: less, equal, greater.
    Order(Limit, [bool; 3]),
    Between(Limit, Limit),
    Prefix(Vec<u8>),
    Suffix(Vec<u8>),
    Whole(Vec<u8>),
    Infix(Vec<u8>),
    Wildcard(Vec<u8>),
    Regex(regex::bytes::Regex),
}

enum Literal {
    /// Equal as `==` has it.
    Number(Number),
    /// Any other term by its encoding, and the bytes of a binary.
    Term {
        encoded: Box<[u8]>,
        binary: Option<Box<[u8]>>,
    },
}

enum Limit {
    Number(Number),
    Binary(Box<[u8]>),
    /// Any other term, to which nothing has an order.
    None,
}

impl Predicate {
    /// The predicate of a canonical form; none if these bytes are none.
    #[must_use]
    pub fn decode(canonical: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(canonical)?;
        let mut decoder = Decoder::default();
        decoder.decode(&mut reader)?;
        reader.is_at_end().then(|| decoder.predicate())
    }

    /// The sections that an answer may need.
    #[must_use]
    pub fn sections(&self) -> Sections {
        self.sections
    }

    /// Whether an event satisfies it.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where a payload is malformed on the way to the answer.
    #[inline]
    pub fn matches(&self, events: &Events, event: usize) -> Result<bool, Error> {
        let mut place = 0;
        while let Some(step) = self.steps.get(place) {
            let [fails, holds] = step.targets;
            place = match step.test.holds(events, event)? {
                true => holds,
                false => fails,
            };
        }
        Ok(place == YES)
    }
}

/// Steps while their targets are not known yet: labels stand for them.
#[derive(Default)]
struct Decoder {
    steps: Vec<Step>,
    sections: Sections,
    /// Where the labels are, once that is known.
    labels: Vec<usize>,
    open: Vec<Junction>,
}

/// An `and` or `or` whose members are being read.
struct Junction {
    is_and: bool,
    /// How many members are still to come.
    left: u64,
    targets: [usize; 2],
    /// Where the next member begins.
    next: usize,
}

const LABEL_NO: usize = 0;
const LABEL_YES: usize = 1;

impl Decoder {
    fn decode(&mut self, reader: &mut Reader) -> Option<()> {
        self.labels.extend([NO, YES]);
        self.node(reader, [LABEL_NO, LABEL_YES])?;
        while let Some(junction) = self.open.last_mut() {
            if junction.left == 0 {
                reader.end()?;
                self.open.pop();
                continue;
            }
            junction.left -= 1;
            let label = junction.next;
            let mut targets = junction.targets;
            if junction.left > 0 {
                junction.next = self.labels.len();
                let [fails, holds] = &mut targets;
                *(if junction.is_and { holds } else { fails }) = junction.next;
                self.labels.push(NO);
            }
            *self.labels.get_mut(label)? = self.steps.len();
            self.node(reader, targets)?;
        }
        Some(())
    }

    /// Reads what a predicate begins with, of a test all of it.
    fn node(&mut self, reader: &mut Reader, mut targets: [usize; 2]) -> Option<()> {
        loop {
            if !reader.is_at_tuple() {
                let is_true = match reader.atom()? {
                    b"true" => true,
                    b"false" => false,
                    _ => return None,
                };
                return self.push(Test::Constant(is_true), targets);
            }
            let arity = reader.tuple()?;
            match (arity, reader.atom()?) {
                (2, b"not") => targets.reverse(),
                (2, name @ (b"and" | b"or")) => {
                    return self.junction(name == b"and", reader, targets);
                }
                (_, name) => {
                    let path = Path::read(reader)?;
                    self.sections = self.sections.and(path.sections());
                    let question = Question::read(arity, name, reader)?;
                    return self.push(Test::Field(path, question), targets);
                }
            }
        }
    }

    fn junction(&mut self, is_and: bool, reader: &mut Reader, targets: [usize; 2]) -> Option<()> {
        match reader.enter_list()? {
            0 => self.push(Test::Constant(is_and), targets),
            left => {
                let next = self.labels.len();
                self.labels.push(NO);
                self.open.push(Junction {
                    is_and,
                    left,
                    targets,
                    next,
                });
                Some(())
            }
        }
    }

    fn push(&mut self, test: Test, targets: [usize; 2]) -> Option<()> {
        self.steps.push(Step { test, targets });
        Some(())
    }

    fn predicate(mut self) -> Predicate {
        for target in self.steps.iter_mut().flat_map(|step| &mut step.targets) {
            *target = self.labels.get(*target).copied().unwrap_or(NO);
        }
        Predicate {
            steps: self.steps,
            sections: self.sections,
        }
    }
}

impl Question {
    fn read(arity: u8, name: &[u8], reader: &mut Reader) -> Option<Self> {
        let order = |reader: &mut Reader, orders| Some(Self::Order(Limit::read(reader)?, orders));
        let bytes = |reader: &mut Reader| reader.binary().map(<[u8]>::to_vec);
        match (arity, name) {
            (2, b"exists") => Some(Self::Exists),
            (3, b"eq") => Literal::read(reader).map(Self::Equal),
            (3, b"neq") => Literal::read(reader).map(Self::NotEqual),
            (3, b"in") => literals(reader).map(Self::In),
            (3, b"any_of") => literals(reader).map(Self::AnyOf),
            (3, b"gt") => order(reader, [false, false, true]),
            (3, b"gte") => order(reader, [false, true, true]),
            (3, b"lt") => order(reader, [true, false, false]),
            (3, b"lte") => order(reader, [true, true, false]),
            (4, b"between") => Some(Self::Between(Limit::read(reader)?, Limit::read(reader)?)),
            (3, b"prefix") => bytes(reader).map(Self::Prefix),
            (3, b"suffix") => bytes(reader).map(Self::Suffix),
            (3, b"equals_bytes") => bytes(reader).map(Self::Whole),
            (3, b"infix") => bytes(reader).map(Self::Infix),
            (3, b"wildcard") => bytes(reader).map(Self::Wildcard),
            (3, b"regex") => regex(reader.binary()?).map(Self::Regex),
            _ => None,
        }
    }

    #[inline]
    fn holds(&self, value: &Value) -> Result<bool, Error> {
        match self {
            Self::Exists => Ok(true),
            Self::Equal(literal) => literal.is(value),
            Self::NotEqual(literal) => literal.is(value).map(|is| !is),
            Self::In(literals) => is_in(literals, value),
            Self::AnyOf(literals) => is_any_of(literals, value),
            Self::Order(limit, [less, equal, greater]) => {
                Ok(limit.order(value)?.is_some_and(|order| match order {
                    Ordering::Less => *less,
                    Ordering::Equal => *equal,
                    Ordering::Greater => *greater,
                }))
            }
            Self::Between(low, high) => Ok(low.order(value)?.is_some_and(Ordering::is_ge)
                && high.order(value)?.is_some_and(Ordering::is_le)),
            Self::Prefix(prefix) => text(value, |text| text.starts_with(prefix)),
            Self::Suffix(suffix) => text(value, |text| text.ends_with(suffix)),
            Self::Whole(whole) => text(value, |text| text == whole),
            Self::Infix(infix) => text(value, |text| contains(text, infix)),
            Self::Wildcard(pattern) => text(value, |text| is_like(text, pattern)),
            Self::Regex(regex) => text(value, |text| regex.is_match(text)),
        }
    }
}

impl Test {
    #[inline]
    fn holds(&self, events: &Events, event: usize) -> Result<bool, Error> {
        match self {
            Self::Constant(is_true) => Ok(*is_true),
            Self::Field(path, question) => match path.of(events, event)? {
                Some(value) => question.holds(&value),
                None => Ok(false),
            },
        }
    }
}

impl Literal {
    fn read(reader: &mut Reader) -> Option<Self> {
        reader.term().map(Self::new)?
    }

    fn new(encoded: &[u8]) -> Option<Self> {
        let term = Term::new(encoded);
        Some(match term.number().ok()? {
            Some(number) => Self::Number(number),
            None => Self::Term {
                encoded: encoded.into(),
                binary: term.binary().ok()?.map(Into::into),
            },
        })
    }

    #[inline]
    fn is(&self, value: &Value) -> Result<bool, Error> {
        Ok(match (self, value) {
            (Self::Number(number), _) => value.number()?.is_some_and(|value| value == *number),
            (Self::Term { encoded, .. }, Value::Term(_, term)) => term.is(encoded),
            (Self::Term { binary, .. }, Value::Binary(bytes)) => binary.as_deref() == Some(*bytes),
            (Self::Term { .. }, Value::Integer(_)) => false,
        })
    }
}

fn literals(reader: &mut Reader) -> Option<Vec<Literal>> {
    let encoded = reader.list()?;
    encoded.iter().map(|term| Literal::new(term)).collect()
}

#[inline]
fn is_in(literals: &[Literal], value: &Value) -> Result<bool, Error> {
    for literal in literals {
        if literal.is(value)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a member of a list is among the literals, or what is no list itself.
fn is_any_of(literals: &[Literal], value: &Value) -> Result<bool, Error> {
    let Value::Term(section, term) = value else {
        return is_in(literals, value);
    };
    match found(term.kind(), *section)? {
        Kind::Bytes(bytes) => {
            for byte in bytes {
                if is_in(literals, &Value::Integer((*byte).into()))? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Kind::List(mut members) => {
            while let Some(member) = found(members.next_term(), *section)? {
                if is_in(literals, &Value::Term(*section, member))? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        _ => is_in(literals, value),
    }
}

impl Limit {
    fn read(reader: &mut Reader) -> Option<Self> {
        let term = Term::new(reader.term()?);
        Some(match (term.number().ok()?, term.binary().ok()?) {
            (Some(number), _) => Self::Number(number),
            (_, Some(bytes)) => Self::Binary(bytes.into()),
            _ => Self::None,
        })
    }

    /// How the value stands to the limit; a number to a number, a binary to a binary.
    #[inline]
    fn order(&self, value: &Value) -> Result<Option<Ordering>, Error> {
        match self {
            Self::Number(limit) => Ok(value.number()?.map(|number| number.cmp(limit))),
            Self::Binary(limit) => Ok(value.binary()?.map(|bytes| bytes.cmp(limit))),
            Self::None => Ok(None),
        }
    }
}

#[inline]
fn text(value: &Value, test: impl FnOnce(&[u8]) -> bool) -> Result<bool, Error> {
    Ok(value.binary()?.is_some_and(test))
}

fn contains(text: &[u8], infix: &[u8]) -> bool {
    memchr::memmem::find(text, infix).is_some()
}

/// Wildcards: `*` is any bytes, `?` one. Only the last `*` need ever take more, so nothing is tried twice but
/// what follows that.
fn is_like(text: &[u8], pattern: &[u8]) -> bool {
    let (mut text_at, mut pattern_at) = (0, 0);
    let mut last_star = None;
    while let Some(byte) = text.get(text_at) {
        match pattern.get(pattern_at) {
            Some(b'*') => {
                last_star = Some((pattern_at + 1, text_at));
                pattern_at += 1;
            }
            Some(wanted) if *wanted == b'?' || wanted == byte => {
                text_at += 1;
                pattern_at += 1;
            }
            _ => match &mut last_star {
                Some((behind, taken)) => {
                    *taken += 1;
                    (pattern_at, text_at) = (*behind, *taken);
                }
                None => return false,
            },
        }
    }
    pattern
        .get(pattern_at..)
        .is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

/// The parser in Erlang has bounded the size of what it renders.
fn regex(rendering: &[u8]) -> Option<regex::bytes::Regex> {
    let rendering = std::str::from_utf8(rendering).ok()?;
    regex::bytes::RegexBuilder::new(rendering)
        .unicode(false)
        .build()
        .ok()
}

/// Predicates asked lately, by their canonical form.
type Recent = VecDeque<(Box<[u8]>, Arc<Predicate>)>;

static RECENT: Mutex<Recent> = Mutex::new(VecDeque::new());
const RECENT_COUNT: usize = 32;
/// Larger ones are decoded for each question, which costs less than what they ask.
const RECENT_LARGEST: usize = 4_096;

/// The predicate of a canonical form, from a small cache where it was asked lately.
#[must_use]
pub fn prepared(canonical: &[u8]) -> Option<Arc<Predicate>> {
    if canonical.len() > RECENT_LARGEST {
        return Predicate::decode(canonical).map(Arc::new);
    }
    if let Some(known) = recent(canonical) {
        return Some(known);
    }
    let decoded = Arc::new(Predicate::decode(canonical)?);
    if let Ok(mut recent) = RECENT.lock() {
        recent.push_front((canonical.into(), Arc::clone(&decoded)));
        recent.truncate(RECENT_COUNT);
    }
    Some(decoded)
}

fn recent(canonical: &[u8]) -> Option<Arc<Predicate>> {
    let mut recent = RECENT.lock().ok()?;
    let place = recent.iter().position(|(known, _)| **known == *canonical)?;
    let entry = recent.remove(place)?;
    let predicate = Arc::clone(&entry.1);
    recent.push_front(entry);
    Some(predicate)
}
