//! NIFs of the Erlang module `esdb_filter_nif`: terms in, `esdb_core::pattern`, terms out.
//!
//! The Erlang wrappers have checked the arguments: a list is proper and has binaries only. A pattern comes as
//! its handle, `{Kind, Bytes, Reference}`. The bytes decide: where the reference is none of this
//! library, or is of other bytes, a wildcard is made anew; a regular expression, and a set, is looked for among
//! those that were made last, and when it is not there the answer is `stale`, and the parser has to judge it first.
//!
//! What a call costs is counted as it goes, from what was made here and not from what a handle says; on a normal
//! scheduler the answer is `long` when that is too much, and it is asked again on a dirty one.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use esdb_boundary::term;
use esdb_core::pattern::{self, Regex, Set, Test, Wildcard};
use rustler::{
    Atom, Binary, Encoder, Env, Error, ListIterator, NifResult, Resource, ResourceArc, Term, nif,
};

mod atoms {
    rustler::atoms! { esdb_regex, long, stale }
}

#[nif]
fn implementation() -> Atom {
    esdb_boundary::implementation()
}

/// A pattern and the bytes that it was made from.
struct Kept {
    kind: Atom,
    bytes: Vec<u8>,
    test: Test,
}

struct Pattern(Arc<Kept>);

#[rustler::resource_impl]
impl Resource for Pattern {}

struct KeptSet {
    canonical: Vec<u8>,
    set: Set,
}

struct Patterns(Arc<KeptSet>);

#[rustler::resource_impl]
impl Resource for Patterns {}

/// What was made last: a program that gives the text each time, or handles of another node, pays for it once.
struct Last<T>(Mutex<VecDeque<(usize, Arc<T>)>>);

static LAST: Last<Kept> = Last(Mutex::new(VecDeque::new()));
static LAST_SETS: Last<KeptSet> = Last(Mutex::new(VecDeque::new()));
/// How many there are, and how many bytes they take together, about.
const LAST_ARE: usize = 16;
const LAST_BYTES: usize = 16 << 20;
/// What an instruction of an expression takes, and a pattern of a set besides its bytes.
const BYTES_OF_ONE: usize = 256;

impl<T> Last<T> {
    fn find(&self, is_it: impl Fn(&T) -> bool) -> Option<Arc<T>> {
        let last = self.0.lock().ok()?;
        let found = last.iter().find(|(_, kept)| is_it(kept));
        found.map(|(_, kept)| Arc::clone(kept))
    }

    /// Keeps one, in place of older ones.
    fn add(&self, kept: &Arc<T>, bytes: usize) {
        if bytes > LAST_BYTES {
            return;
        }
        if let Ok(mut last) = self.0.lock() {
            last.push_front((bytes, Arc::clone(kept)));
            let sums = last.iter().scan(0, |sum, (bytes, _)| {
                *sum += bytes;
                Some(*sum)
            });
            let fitting = sums.take_while(|sum| *sum <= LAST_BYTES).count();
            last.truncate(fitting.min(LAST_ARE));
        }
    }
}

/// What may still be done, in nanoseconds, about.
struct Meter {
    limit: usize,
    steps: usize,
    has_begun: bool,
}

/// A normal scheduler takes half a millisecond: a step is counted roughly.
const SHORT: usize = 500_000;
/// What one text of a list costs besides its bytes.
const ITEM: usize = 50;
/// A hundredth of a millisecond.
const STEPS_A_PERCENT: usize = 10_000;
/// What it takes to make an expression that is not made on a dirty scheduler.
const AN_EXPRESSION: usize = 500_000;
/// Bytes that are compared in a nanosecond, at least.
const BYTES_A_STEP: usize = 8;

/// Why there is no answer.
enum Stop {
    BadArg,
    Long,
    Stale,
}

impl From<Error> for Stop {
    fn from(_: Error) -> Self {
        Self::BadArg
    }
}

type Asked<T> = Result<T, Stop>;

impl Meter {
    fn normal() -> Self {
        Self::to(SHORT)
    }

    fn dirty() -> Self {
        Self::to(usize::MAX)
    }

    fn to(limit: usize) -> Self {
        Self {
            limit,
            steps: 0,
            has_begun: false,
        }
    }

    #[inline]
    fn take(&mut self, steps: usize) -> Asked<()> {
        self.steps = self.steps.saturating_add(steps);
        if self.steps > self.limit {
            return Err(Stop::Long);
        }
        Ok(())
    }

    /// One text; a long one may have to begin what the next ones go on with.
    #[inline]
    fn text(&mut self, text: &[u8], steps: usize, begin: impl Fn() -> usize) -> Asked<()> {
        if text.len() > pattern::SHORT_TEXT && !self.has_begun {
            self.has_begun = true;
            self.take(begin())?;
        }
        self.take(steps + ITEM)
    }

    #[inline]
    fn test(&mut self, text: &[u8], test: &Test) -> Asked<bool> {
        self.text(text, test.steps(text.len()), || test.steps_to_begin())?;
        Ok(test.matches(text))
    }

    /// The answer as a term, and to the scheduler what it took.
    fn told<'a>(&self, env: Env<'a>, answer: Asked<Term<'a>>) -> NifResult<Term<'a>> {
        if self.limit == SHORT {
            esdb_boundary::charge(env, self.steps.min(SHORT), STEPS_A_PERCENT);
        }
        match answer {
            Ok(term) => Ok(term),
            Err(Stop::Long) => Ok(atoms::long().encode(env)),
            Err(Stop::Stale) => Ok(atoms::stale().encode(env)),
            Err(Stop::BadArg) => Err(Error::BadArg),
        }
    }
}

fn among_last(bytes: &[u8]) -> Option<Arc<Kept>> {
    LAST.find(|kept| kept.bytes == bytes)
}

fn make(kind: Atom, bytes: &[u8], size: usize) -> NifResult<Arc<Kept>> {
    let new = || {
        Ok(Arc::new(Kept {
            kind,
            bytes: bytes.to_vec(),
            test: test(kind, bytes, size)?,
        }))
    };
    if kind != atoms::esdb_regex() {
        return new();
    }
    if let Some(kept) = among_last(bytes) {
        return Ok(kept);
    }
    let kept = new()?;
    LAST.add(&kept, bytes.len() + size.saturating_mul(BYTES_OF_ONE));
    Ok(kept)
}

/// The size of an expression is what the parser says.
fn test(kind: Atom, bytes: &[u8], size: usize) -> NifResult<Test> {
    if kind == atoms::esdb_regex() {
        let regex = Regex::new(bytes).ok_or(Error::BadArg)?;
        Ok(Test::Regex(regex.sized(size)))
    } else {
        Ok(Test::Wildcard(Wildcard::new(bytes)))
    }
}

#[nif]
fn make_n(env: Env, kind: Atom, bytes: Binary, size: usize) -> NifResult<ResourceArc<Pattern>> {
    let steps = if kind == atoms::esdb_regex() {
        AN_EXPRESSION
    } else {
        Wildcard::steps_to_make(&bytes)
    };
    esdb_boundary::charge(env, steps, STEPS_A_PERCENT);
    Ok(ResourceArc::new(Pattern(make(kind, &bytes, size)?)))
}

#[nif(schedule = "DirtyCpu", name = "make_d")]
fn make_dirty(kind: Atom, bytes: Binary, size: usize) -> NifResult<ResourceArc<Pattern>> {
    Ok(ResourceArc::new(Pattern(make(kind, &bytes, size)?)))
}

/// What `ask` says of the pattern of this handle.
fn asked<'a, T: Encoder>(
    handle: Term<'a>,
    mut meter: Meter,
    ask: impl FnOnce(&Test, &mut Meter) -> Asked<T>,
) -> NifResult<Term<'a>> {
    let env = handle.get_env();
    let answer = with_test(handle, &mut meter, ask).map(|answer| answer.encode(env));
    meter.told(env, answer)
}

fn with_test<T>(
    handle: Term,
    meter: &mut Meter,
    ask: impl FnOnce(&Test, &mut Meter) -> Asked<T>,
) -> Asked<T> {
    let (kind, bytes, compiled) = handle.decode::<(Atom, Binary, Term)>()?;
    meter.take(bytes.len() / BYTES_A_STEP)?;
    if let Ok(pattern) = compiled.decode::<&Pattern>() {
        if pattern.0.kind == kind && pattern.0.bytes == *bytes {
            return ask(&pattern.0.test, meter);
        }
    }
    if kind == atoms::esdb_regex() {
        let kept = among_last(&bytes).ok_or(Stop::Stale)?;
        return ask(&kept.test, meter);
    }
    meter.take(Wildcard::steps_to_make(&bytes))?;
    ask(&Test::Wildcard(Wildcard::new(&bytes)), meter)
}

/// One text and one wildcard: the bytes are the pattern, so nothing has to be kept.
#[nif]
fn wildcard_n<'a>(env: Env<'a>, text: Binary, bytes: Binary, _handle: Term) -> NifResult<Term<'a>> {
    let mut meter = Meter::normal();
    let answer = one_wildcard(&bytes, &text, &mut meter).map(|answer| answer.encode(env));
    meter.told(env, answer)
}

fn one_wildcard(bytes: &[u8], text: &[u8], meter: &mut Meter) -> Asked<bool> {
    if pattern::is_short(bytes, text) {
        return Ok(pattern::wildcard_matches(bytes, text));
    }
    meter.take(Wildcard::steps_to_make(bytes))?;
    meter.test(text, &Test::Wildcard(Wildcard::new(bytes)))
}

#[nif(schedule = "DirtyCpu", name = "wildcard_d")]
fn wildcard_dirty(text: Binary, bytes: Binary, _handle: Term) -> bool {
    pattern::wildcard_matches(&bytes, &text)
}

#[nif]
fn match_n<'a>(text: Binary<'a>, handle: Term<'a>) -> NifResult<Term<'a>> {
    asked(handle, Meter::normal(), |test, meter| {
        meter.test(&text, test)
    })
}

#[nif(schedule = "DirtyCpu", name = "match_d")]
fn match_dirty<'a>(text: Binary<'a>, handle: Term<'a>) -> NifResult<Term<'a>> {
    asked(handle, Meter::dirty(), |test, meter| {
        meter.test(&text, test)
    })
}

#[nif]
fn filter_n<'a>(items: Term<'a>, handle: Term<'a>) -> NifResult<Term<'a>> {
    asked(handle, Meter::normal(), |test, meter| {
        matching(items, test, meter)
    })
}

#[nif(schedule = "DirtyCpu", name = "filter_d")]
fn filter_dirty<'a>(items: Term<'a>, handle: Term<'a>) -> NifResult<Term<'a>> {
    asked(handle, Meter::dirty(), |test, meter| {
        matching(items, test, meter)
    })
}

#[nif]
fn indices_n<'a>(items: Term<'a>, handle: Term<'a>) -> NifResult<Term<'a>> {
    asked(handle, Meter::normal(), |test, meter| {
        indices(items, test, meter)
    })
}

#[nif(schedule = "DirtyCpu", name = "indices_d")]
fn indices_dirty<'a>(items: Term<'a>, handle: Term<'a>) -> NifResult<Term<'a>> {
    asked(handle, Meter::dirty(), |test, meter| {
        indices(items, test, meter)
    })
}

#[nif]
fn count_n<'a>(items: Term<'a>, handle: Term<'a>) -> NifResult<Term<'a>> {
    asked(handle, Meter::normal(), |test, meter| {
        count(items, test, meter)
    })
}

#[nif(schedule = "DirtyCpu", name = "count_d")]
fn count_dirty<'a>(items: Term<'a>, handle: Term<'a>) -> NifResult<Term<'a>> {
    asked(handle, Meter::dirty(), |test, meter| {
        count(items, test, meter)
    })
}

/// Each text of a list with its term.
fn each<'a>(items: Term<'a>, mut visit: impl FnMut(Term<'a>, &'a [u8]) -> Asked<()>) -> Asked<()> {
    let mut rest = items;
    while let Some((item, next)) = term::cell(rest) {
        visit(item, term::bytes(item).ok_or(Stop::BadArg)?)?;
        rest = next;
    }
    Ok(())
}

fn matching<'a>(items: Term<'a>, test: &Test, meter: &mut Meter) -> Asked<Vec<Term<'a>>> {
    let mut found = Vec::new();
    each(items, |item, text| {
        if meter.test(text, test)? {
            found.push(item);
        }
        Ok(())
    })?;
    Ok(found)
}

fn indices(items: Term, test: &Test, meter: &mut Meter) -> Asked<Vec<usize>> {
    let (mut found, mut index) = (Vec::new(), 0);
    each(items, |_, text| {
        if meter.test(text, test)? {
            found.push(index);
        }
        index += 1;
        Ok(())
    })?;
    Ok(found)
}

fn count(items: Term, test: &Test, meter: &mut Meter) -> Asked<usize> {
    let mut found = 0;
    each(items, |_, text| {
        found += usize::from(meter.test(text, test)?);
        Ok(())
    })?;
    Ok(found)
}

fn make_set(canonical: Binary, patterns: ListIterator) -> NifResult<ResourceArc<Patterns>> {
    if let Some(kept) = LAST_SETS.find(|kept| kept.canonical == *canonical) {
        return Ok(ResourceArc::new(Patterns(kept)));
    }
    let mut bytes = canonical.len();
    let tests = patterns
        .map(|pattern| {
            let (kind, text, size) = pattern.decode::<(Atom, Binary, usize)>()?;
            bytes = bytes.saturating_add(text.len() + (1 + size).saturating_mul(BYTES_OF_ONE));
            test(kind, &text, size)
        })
        .collect::<NifResult<Vec<_>>>()?;
    let kept = Arc::new(KeptSet {
        canonical: canonical.to_vec(),
        set: Set::new(tests),
    });
    LAST_SETS.add(&kept, bytes);
    Ok(ResourceArc::new(Patterns(kept)))
}

#[nif]
fn make_set_n(
    env: Env,
    canonical: Binary,
    patterns: ListIterator,
) -> NifResult<ResourceArc<Patterns>> {
    // There are not more patterns than that, and each is a star or less.
    let steps = Wildcard::steps_to_make(&canonical) + canonical.len() * ITEM;
    esdb_boundary::charge(env, steps.min(SHORT), STEPS_A_PERCENT);
    make_set(canonical, patterns)
}

#[nif(schedule = "DirtyCpu", name = "make_set_d")]
fn make_set_dirty(canonical: Binary, patterns: ListIterator) -> NifResult<ResourceArc<Patterns>> {
    make_set(canonical, patterns)
}

#[nif]
fn set_indices_n<'a>(env: Env<'a>, items: Term<'a>, handle: Term<'a>) -> NifResult<Term<'a>> {
    set_indices(env, items, handle, Meter::normal())
}

#[nif(schedule = "DirtyCpu", name = "set_indices_d")]
fn set_indices_dirty<'a>(env: Env<'a>, items: Term<'a>, handle: Term<'a>) -> NifResult<Term<'a>> {
    set_indices(env, items, handle, Meter::dirty())
}

fn set_indices<'a>(
    env: Env<'a>,
    items: Term<'a>,
    handle: Term<'a>,
    mut meter: Meter,
) -> NifResult<Term<'a>> {
    let answer = with_set(items, handle, &mut meter).map(|found| found.encode(env));
    meter.told(env, answer)
}

fn with_set(items: Term, handle: Term, meter: &mut Meter) -> Asked<Vec<Vec<u32>>> {
    let (_, canonical, compiled) = handle.decode::<(Atom, Binary, Term)>()?;
    meter.take(canonical.len() / BYTES_A_STEP)?;
    let of_handle = match compiled.decode::<&Patterns>() {
        Ok(patterns) if patterns.0.canonical == *canonical => Some(Arc::clone(&patterns.0)),
        _ => LAST_SETS.find(|kept| kept.canonical == *canonical),
    };
    let set = &of_handle.ok_or(Stop::Stale)?.set;
    let mut found = Vec::new();
    each(items, |_, text| {
        meter.text(text, set.steps(text.len()), || set.steps_to_begin())?;
        found.push(set.matching(text));
        Ok(())
    })?;
    Ok(found)
}

fn load(_env: Env, info: Term) -> bool {
    esdb_boundary::same_version(info)
}

rustler::init!("esdb_filter_nif", load = load);
