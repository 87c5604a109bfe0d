//! Predicates over the events of packed segments.
//!
//! A predicate comes in its canonical form, an external term, and becomes a list of tests, each with the test to
//! go on with when it holds and when it does not: `and`, `or` and `not` are nothing but these targets. So it is
//! evaluated from left to right, stops where the answer is known, and no depth of nesting takes any stack.

use crate::etf::{Kind, Reader, Term};
use crate::number::Number;
use crate::pattern::{Regex, Wildcard};
use crate::segment::{Error, Events, Fields, Path, Paths, Section, Sections, Value, found};
use std::cmp::Ordering;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

/// A predicate, ready to be asked.
pub struct Predicate {
    steps: Vec<Step>,
    paths: Paths,
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
    /// Of the field at the path of this place.
    Field(usize, Question),
}

enum Question {
    Exists,
    Equal(Literal),
    NotEqual(Literal),
    In(Members),
    AnyOf(Members),
    /// In this order to the limit: less, equal, greater.
    Order(Limit, [bool; 3]),
    Between(Limit, Limit),
    Prefix(Vec<u8>),
    Suffix(Vec<u8>),
    Whole(Vec<u8>),
    Infix(Vec<u8>),
    Wildcard(Wildcard),
    Regex(Regex),
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

/// The values of a list, sorted.
#[derive(Default)]
struct Members {
    numbers: Vec<Number>,
    /// The encodings of all other terms. None is the beginning of another one.
    terms: Vec<Box<[u8]>>,
    /// Which of them are binaries, without their heads.
    binaries: Vec<Box<[u8]>>,
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
        self.paths.sections()
    }

    /// The column of names that is all that a step looks at.
    fn names_section(&self, step: &Step) -> Option<Section> {
        match step.test {
            Test::Constant(_) => None,
            Test::Field(place, _) => self.paths.get(place)?.names_section(),
        }
    }
}

/// A test says the same of all events with the same name. So many answers are remembered, and no more.
const MEMORY: usize = 1 << 16;

/// A predicate that is asked of the events of a segment.
pub struct Asked<'p, 'c> {
    predicate: &'p Predicate,
    fields: Fields<'p, 'c>,
    /// For each step what it says of each name, where that is all that it looks at.
    answers: Vec<Vec<Option<bool>>>,
}

impl<'p, 'c> Asked<'p, 'c> {
    /// Of these events.
    #[must_use]
    pub fn new(predicate: &'p Predicate, events: Events<'c>) -> Self {
        let mut left = MEMORY;
        let answers = predicate.steps.iter().map(|step| {
            let section = predicate.names_section(step);
            let names = section.and_then(|section| events.names(section));
            let count = names.map_or(0, |names| names.count().min(events.count()).min(left));
            left -= count;
            vec![None; count]
        });
        Self {
            predicate,
            answers: answers.collect(),
            fields: Fields::new(&predicate.paths, events),
        }
    }

    /// Whether an event satisfies it.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where a payload is malformed on the way to the answer.
    #[inline]
    pub fn matches(&mut self, event: usize) -> Result<bool, Error> {
        self.fields.go_to(event);
        let mut place = 0;
        while let Some(step) = self.predicate.steps.get(place) {
            let [fails, holds] = step.targets;
            place = match self.holds(place, step, event)? {
                true => holds,
                false => fails,
            };
        }
        Ok(place == YES)
    }

    #[inline]
    fn holds(&mut self, place: usize, step: &'p Step, event: usize) -> Result<bool, Error> {
        let (path, question) = match &step.test {
            Test::Constant(is_true) => return Ok(*is_true),
            Test::Field(path, question) => (*path, question),
        };
        let Some(known) = self
            .answers
            .get_mut(place)
            .filter(|known| !known.is_empty())
        else {
            return holds(question, self.fields.get(path)?);
        };
        let section = self.predicate.names_section(step);
        let names = section.and_then(|section| self.fields.events().names(section));
        let code = names.and_then(|names| names.code(event));
        match code.and_then(|code| known.get_mut(code)) {
            Some(Some(known)) => Ok(*known),
            Some(unknown) => {
                let answer = holds(question, self.fields.get(path)?)?;
                *unknown = Some(answer);
                Ok(answer)
            }
            None => holds(question, self.fields.get(path)?),
        }
    }
}

/// What is missing satisfies nothing.
#[inline]
fn holds(question: &Question, value: Option<Value>) -> Result<bool, Error> {
    match value {
        Some(value) => question.holds(&value),
        None => Ok(false),
    }
}

/// Steps while their targets are not known yet: labels stand for them.
#[derive(Default)]
struct Decoder {
    steps: Vec<Step>,
    paths: Paths,
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
                    let place = self.paths.count();
                    self.paths.push(Path::read(reader)?);
                    let question = Question::read(arity, name, reader)?;
                    return self.push(Test::Field(place, question), targets);
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
            paths: self.paths,
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
            (3, b"in") => Members::read(reader).map(Self::In),
            (3, b"any_of") => Members::read(reader).map(Self::AnyOf),
            (3, b"gt") => order(reader, [false, false, true]),
            (3, b"gte") => order(reader, [false, true, true]),
            (3, b"lt") => order(reader, [true, false, false]),
            (3, b"lte") => order(reader, [true, true, false]),
            (4, b"between") => Some(Self::Between(Limit::read(reader)?, Limit::read(reader)?)),
            (3, b"prefix") => bytes(reader).map(Self::Prefix),
            (3, b"suffix") => bytes(reader).map(Self::Suffix),
            (3, b"equals_bytes") => bytes(reader).map(Self::Whole),
            (3, b"infix") => bytes(reader).map(Self::Infix),
            (3, b"wildcard") => reader.binary().map(Wildcard::new).map(Self::Wildcard),
            (3, b"regex") => Regex::new(reader.binary()?).map(Self::Regex),
            _ => None,
        }
    }

    #[inline]
    fn holds(&self, value: &Value) -> Result<bool, Error> {
        match self {
            Self::Exists => Ok(true),
            Self::Equal(literal) => literal.is(value),
            Self::NotEqual(literal) => literal.is(value).map(|is| !is),
            Self::In(members) => members.has(value),
            Self::AnyOf(members) => members.has_any(value),
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
            Self::Wildcard(wildcard) => text(value, |text| wildcard.matches(text)),
            Self::Regex(regex) => text(value, |text| regex.matches(text)),
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

impl Members {
    fn read(reader: &mut Reader) -> Option<Self> {
        let mut members = Self::default();
        for encoded in reader.list()? {
            members.push(Literal::new(&encoded)?);
        }
        members.numbers.sort_unstable();
        members.terms.sort_unstable();
        members.binaries.sort_unstable();
        Some(members)
    }

    fn push(&mut self, literal: Literal) {
        match literal {
            Literal::Number(number) => self.numbers.push(number),
            Literal::Term { encoded, binary } => {
                self.terms.push(encoded);
                self.binaries.extend(binary);
            }
        }
    }

    /// Whether the value is one of them.
    #[inline]
    fn has(&self, value: &Value) -> Result<bool, Error> {
        let is_term = match value {
            Value::Term(_, term) => self.has_term(term),
            Value::Binary(bytes) => self
                .binaries
                .binary_search_by(|one| (**one).cmp(bytes))
                .is_ok(),
            Value::Integer(_) => false,
        };
        Ok(is_term || self.has_number(value)?)
    }

    /// If one of them is what the bytes begin with, no other one stands between the two.
    fn has_term(&self, term: &Term) -> bool {
        let after = self.terms.partition_point(|one| **one <= *term.bytes());
        let last = after.checked_sub(1).and_then(|place| self.terms.get(place));
        last.is_some_and(|encoded| term.is(encoded))
    }

    fn has_number(&self, value: &Value) -> Result<bool, Error> {
        if self.numbers.is_empty() {
            return Ok(false);
        }
        let number = value.number()?;
        Ok(number.is_some_and(|number| self.numbers.binary_search(&number).is_ok()))
    }

    /// Whether a member of a list is one of them, or what is no list itself.
    fn has_any(&self, value: &Value) -> Result<bool, Error> {
        let Value::Term(section, term) = value else {
            return self.has(value);
        };
        match found(term.kind(), *section)? {
            Kind::Bytes(bytes) => {
                for byte in bytes {
                    if self.has(&Value::Integer((*byte).into()))? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Kind::List(mut members) => {
                while let Some(member) = found(members.next_term(), *section)? {
                    if self.has(&Value::Term(*section, member))? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            _ => self.has(value),
        }
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
