//! NIFs of the Erlang module `esdb_filter_nif`: terms in, `esdb_core::pattern`, terms out.
//!
//! The Erlang wrappers have checked the arguments: a list is proper and has binaries only. A pattern comes as
//! its handle, `{Kind, Bytes, {Cost, Reference}}`. The bytes decide: where the reference is none of this
//! library, or is of other bytes, a wildcard is made anew; a regular expression, and a set, is looked for among
//! those that were made last, and when it is not there the answer is `stale`, and the parser has to judge it first.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use esdb_boundary::term;
use esdb_core::pattern::{self, Regex, Set, Test, Wildcard};
use rustler::{
    Atom, Binary, Encoder, Env, Error, ListIterator, NifResult, Resource, ResourceArc, Term, nif,
};

mod atoms {
    rustler::atoms! { esdb_wildcard, esdb_regex, stale }
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
struct Last<T>(Mutex<VecDeque<Arc<T>>>);

static LAST: Last<Kept> = Last(Mutex::new(VecDeque::new()));
static LAST_SETS: Last<KeptSet> = Last(Mutex::new(VecDeque::new()));
const LAST_ARE: usize = 16;

impl<T> Last<T> {
    fn find(&self, is_it: impl Fn(&T) -> bool) -> Option<Arc<T>> {
        let last = self.0.lock().ok()?;
        last.iter().find(|kept| is_it(kept)).cloned()
    }

    fn add(&self, kept: &Arc<T>) {
        if let Ok(mut last) = self.0.lock() {
            last.truncate(LAST_ARE - 1);
            last.push_front(Arc::clone(kept));
        }
    }
}

fn among_last(bytes: &[u8]) -> Option<Arc<Kept>> {
    LAST.find(|kept| kept.bytes == bytes)
}

fn make(kind: Atom, bytes: &[u8]) -> NifResult<Arc<Kept>> {
    if kind != atoms::esdb_regex() {
        return Ok(Arc::new(Kept {
            kind,
            bytes: bytes.to_vec(),
            test: test(kind, bytes)?,
        }));
    }
    if let Some(kept) = among_last(bytes) {
        return Ok(kept);
    }
    let kept = Arc::new(Kept {
        kind,
        bytes: bytes.to_vec(),
        test: test(kind, bytes)?,
    });
    LAST.add(&kept);
    Ok(kept)
}

fn test(kind: Atom, bytes: &[u8]) -> NifResult<Test> {
    if kind == atoms::esdb_regex() {
        Regex::new(bytes).map(Test::Regex).ok_or(Error::BadArg)
    } else {
        Ok(Test::Wildcard(Wildcard::new(bytes)))
    }
}

#[nif]
fn make_n(kind: Atom, bytes: Binary) -> NifResult<ResourceArc<Pattern>> {
    Ok(ResourceArc::new(Pattern(make(kind, &bytes)?)))
}

#[nif(schedule = "DirtyCpu", name = "make_d")]
fn make_dirty(kind: Atom, bytes: Binary) -> NifResult<ResourceArc<Pattern>> {
    Ok(ResourceArc::new(Pattern(make(kind, &bytes)?)))
}

/// What `ask` says of the pattern of this handle, or `stale`.
fn asked<'a, T: Encoder>(
    env: Env<'a>,
    handle: Term<'a>,
    ask: impl FnOnce(&Test) -> NifResult<T>,
) -> NifResult<Term<'a>> {
    let (kind, bytes, compiled) = handle.decode::<(Atom, Binary, Term)>()?;
    if let Ok((_, pattern)) = compiled.decode::<(Term, &Pattern)>() {
        if pattern.0.kind == kind && pattern.0.bytes == *bytes {
            return Ok(ask(&pattern.0.test)?.encode(env));
        }
    }
    if kind != atoms::esdb_regex() {
        return Ok(ask(&test(kind, &bytes)?)?.encode(env));
    }
    match among_last(&bytes) {
        Some(kept) => Ok(ask(&kept.test)?.encode(env)),
        None => Ok(atoms::stale().encode(env)),
    }
}

/// One text and one wildcard: the bytes are the pattern, so nothing has to be kept.
#[nif]
fn wildcard_n(text: Binary, bytes: Binary, _handle: Term) -> bool {
    pattern::wildcard_matches(&bytes, &text)
}

#[nif(schedule = "DirtyCpu", name = "wildcard_d")]
fn wildcard_dirty(text: Binary, bytes: Binary, _handle: Term) -> bool {
    pattern::wildcard_matches(&bytes, &text)
}

#[nif]
fn match_n<'a>(env: Env<'a>, text: Binary, handle: Term<'a>) -> NifResult<Term<'a>> {
    asked(env, handle, |test| Ok(test.matches(&text)))
}

#[nif(schedule = "DirtyCpu", name = "match_d")]
fn match_dirty<'a>(env: Env<'a>, text: Binary, handle: Term<'a>) -> NifResult<Term<'a>> {
    asked(env, handle, |test| Ok(test.matches(&text)))
}

#[nif]
fn filter_n<'a>(env: Env<'a>, items: Term<'a>, handle: Term<'a>) -> NifResult<Term<'a>> {
    asked(env, handle, |test| matching(items, test))
}

#[nif(schedule = "DirtyCpu", name = "filter_d")]
fn filter_dirty<'a>(env: Env<'a>, items: Term<'a>, handle: Term<'a>) -> NifResult<Term<'a>> {
    asked(env, handle, |test| matching(items, test))
}

#[nif]
fn indices_n<'a>(env: Env<'a>, items: Term<'a>, handle: Term<'a>) -> NifResult<Term<'a>> {
    asked(env, handle, |test| indices(items, test))
}

#[nif(schedule = "DirtyCpu", name = "indices_d")]
fn indices_dirty<'a>(env: Env<'a>, items: Term<'a>, handle: Term<'a>) -> NifResult<Term<'a>> {
    asked(env, handle, |test| indices(items, test))
}

#[nif]
fn count_n<'a>(env: Env<'a>, items: Term<'a>, handle: Term<'a>) -> NifResult<Term<'a>> {
    asked(env, handle, |test| count(items, test))
}

#[nif(schedule = "DirtyCpu", name = "count_d")]
fn count_dirty<'a>(env: Env<'a>, items: Term<'a>, handle: Term<'a>) -> NifResult<Term<'a>> {
    asked(env, handle, |test| count(items, test))
}

/// Each text of a list with its term.
fn each<'a>(items: Term<'a>, mut visit: impl FnMut(Term<'a>, &'a [u8])) -> NifResult<()> {
    let mut rest = items;
    while let Some((item, next)) = term::cell(rest) {
        visit(item, term::bytes(item).ok_or(Error::BadArg)?);
        rest = next;
    }
    Ok(())
}

fn matching<'a>(items: Term<'a>, test: &Test) -> NifResult<Vec<Term<'a>>> {
    let mut found = Vec::new();
    each(items, |item, text| {
        if test.matches(text) {
            found.push(item);
        }
    })?;
    Ok(found)
}

fn indices(items: Term, test: &Test) -> NifResult<Vec<usize>> {
    let (mut found, mut index) = (Vec::new(), 0);
    each(items, |_, text| {
        if test.matches(text) {
            found.push(index);
        }
        index += 1;
    })?;
    Ok(found)
}

fn count(items: Term, test: &Test) -> NifResult<usize> {
    let mut found = 0;
    each(items, |_, text| found += usize::from(test.matches(text)))?;
    Ok(found)
}

fn make_set(canonical: Binary, patterns: ListIterator) -> NifResult<ResourceArc<Patterns>> {
    let tests = patterns
        .map(|pattern| {
            let (kind, bytes) = pattern.decode::<(Atom, Binary)>()?;
            test(kind, &bytes)
        })
        .collect::<NifResult<Vec<_>>>()?;
    let kept = Arc::new(KeptSet {
        canonical: canonical.to_vec(),
        set: Set::new(tests),
    });
    LAST_SETS.add(&kept);
    Ok(ResourceArc::new(Patterns(kept)))
}

#[nif]
fn make_set_n(canonical: Binary, patterns: ListIterator) -> NifResult<ResourceArc<Patterns>> {
    make_set(canonical, patterns)
}

#[nif(schedule = "DirtyCpu", name = "make_set_d")]
fn make_set_dirty(canonical: Binary, patterns: ListIterator) -> NifResult<ResourceArc<Patterns>> {
    make_set(canonical, patterns)
}

#[nif]
fn set_indices_n<'a>(env: Env<'a>, items: Term<'a>, handle: Term<'a>) -> NifResult<Term<'a>> {
    set_indices(env, items, handle)
}

#[nif(schedule = "DirtyCpu", name = "set_indices_d")]
fn set_indices_dirty<'a>(env: Env<'a>, items: Term<'a>, handle: Term<'a>) -> NifResult<Term<'a>> {
    set_indices(env, items, handle)
}

fn set_indices<'a>(env: Env<'a>, items: Term<'a>, handle: Term<'a>) -> NifResult<Term<'a>> {
    let (_, canonical, compiled) = handle.decode::<(Atom, Binary, Term)>()?;
    let of_handle = match compiled.decode::<(Term, &Patterns)>() {
        Ok((_, patterns)) if patterns.0.canonical == *canonical => Some(Arc::clone(&patterns.0)),
        _ => LAST_SETS.find(|kept| kept.canonical == *canonical),
    };
    let Some(kept) = of_handle else {
        return Ok(atoms::stale().encode(env));
    };
    let mut found = Vec::new();
    each(items, |_, text| found.push(kept.set.matching(text)))?;
    Ok(found.encode(env))
}

fn load(_env: Env, info: Term) -> bool {
    esdb_boundary::same_version(info)
}

rustler::init!("esdb_filter_nif", load = load);
