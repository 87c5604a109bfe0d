//! NIFs of the Erlang module `esdb_segment_nif`: terms in, `esdb_core::query`, terms out.
//!
//! The Erlang side has checked types, and chosen between a normal scheduler (`_n`) and a dirty one (`_d`), which
//! alone takes help from other threads.

mod terms;

use esdb_core::query::{self, Error};
use rustler::{Atom, Env, Term, nif};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use terms::{
    Asked, Atoms, Bounds, Fail, Initial, Limit, Number, Packed, PathArg, PredicateArg, Question,
    Rows, SourceArg, Terms,
};

/// One hundredth of a timeslice of 1 ms, in nanoseconds.
const PERCENT: usize = 10_000;
/// A caller's own.
const ONE: NonZeroUsize = NonZeroUsize::MIN;

#[nif]
fn implementation() -> Atom {
    esdb_boundary::implementation()
}

/// How many threads a question may take, as Erlang said when it loaded this library.
static THREADS: AtomicUsize = AtomicUsize::new(1);

fn threads() -> NonZeroUsize {
    NonZeroUsize::new(THREADS.load(Ordering::Relaxed)).unwrap_or(ONE)
}

/// Work on a normal scheduler, which is told how long it took: from the sizes alone that does not follow.
fn timed<T>(env: Env, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    let nanoseconds = usize::try_from(start.elapsed().as_nanos()).unwrap_or(usize::MAX);
    esdb_boundary::charge(env, nanoseconds, PERCENT);
    result
}

#[nif]
fn matching_n<'a>(
    env: Env<'a>,
    sources: Vec<SourceArg>,
    predicate: PredicateArg,
    limit: Limit,
) -> Result<Vec<Packed<'a>>, Fail> {
    timed(env, || matching(env, &sources, &predicate, &limit, ONE))
}

#[nif(schedule = "DirtyCpu", name = "matching_d")]
fn matching_dirty<'a>(
    env: Env<'a>,
    sources: Vec<SourceArg>,
    predicate: PredicateArg,
    limit: Limit,
) -> Result<Vec<Packed<'a>>, Fail> {
    matching(env, &sources, &predicate, &limit, threads())
}

fn matching<'a>(
    env: Env<'a>,
    sources: &[SourceArg],
    predicate: &PredicateArg,
    limit: &Limit,
    threads: NonZeroUsize,
) -> Result<Vec<Packed<'a>>, Fail> {
    terms::with(sources, |sources| {
        let found = query::matching(sources, &predicate.0, limit.0, threads)?;
        let packed = found.iter().map(|indices| Packed::indices(env, indices));
        packed.collect()
    })
}

#[nif]
fn filtered_n<'a>(
    env: Env<'a>,
    sources: Vec<SourceArg>,
    predicate: PredicateArg,
) -> Result<Packed<'a>, Fail> {
    timed(env, || filtered(env, &sources, &predicate, ONE))
}

#[nif(schedule = "DirtyCpu", name = "filtered_d")]
fn filtered_dirty<'a>(
    env: Env<'a>,
    sources: Vec<SourceArg>,
    predicate: PredicateArg,
) -> Result<Packed<'a>, Fail> {
    filtered(env, &sources, &predicate, threads())
}

fn filtered<'a>(
    env: Env<'a>,
    sources: &[SourceArg],
    predicate: &PredicateArg,
    threads: NonZeroUsize,
) -> Result<Packed<'a>, Fail> {
    terms::with(sources, |sources| {
        Packed::bytes(env, &query::filtered(sources, &predicate.0, threads)?)
    })
}

#[nif]
fn counted_n(env: Env, sources: Vec<SourceArg>, predicate: PredicateArg) -> Result<usize, Fail> {
    timed(env, || counted(&sources, &predicate, ONE))
}

#[nif(schedule = "DirtyCpu", name = "counted_d")]
fn counted_dirty(sources: Vec<SourceArg>, predicate: PredicateArg) -> Result<usize, Fail> {
    counted(&sources, &predicate, threads())
}

fn counted(
    sources: &[SourceArg],
    predicate: &PredicateArg,
    threads: NonZeroUsize,
) -> Result<usize, Fail> {
    terms::with(sources, |sources| {
        Ok(query::counted(sources, &predicate.0, threads)?)
    })
}

#[nif]
fn aggregated_n(
    env: Env,
    sources: Vec<SourceArg>,
    path: PathArg,
    question: Question,
) -> Result<Number, Fail> {
    timed(env, || aggregated(&sources, path, &question, ONE))
}

#[nif(schedule = "DirtyCpu", name = "aggregated_d")]
fn aggregated_dirty(
    sources: Vec<SourceArg>,
    path: PathArg,
    question: Question,
) -> Result<Number, Fail> {
    aggregated(&sources, path, &question, threads())
}

fn aggregated(
    sources: &[SourceArg],
    path: PathArg,
    question: &Question,
    threads: NonZeroUsize,
) -> Result<Number, Fail> {
    let aggregate = query::Aggregate::new(question.0, path.0);
    terms::with(sources, |sources| {
        Ok(Number(query::aggregated(sources, &aggregate, threads)?))
    })
}

#[nif]
fn grouped_n<'a>(
    env: Env<'a>,
    sources: Vec<SourceArg>,
    path: PathArg,
    asked: Asked,
) -> Result<Term<'a>, Fail> {
    timed(env, || {
        grouped(env, &sources, &path, &asked, (ONE, Bounds::SHORT))
    })
}

#[nif(schedule = "DirtyCpu", name = "grouped_d")]
fn grouped_dirty<'a>(
    env: Env<'a>,
    sources: Vec<SourceArg>,
    path: PathArg,
    asked: Asked,
) -> Result<Term<'a>, Fail> {
    grouped(env, &sources, &path, &asked, (threads(), Bounds::LONG))
}

fn grouped<'a>(
    env: Env<'a>,
    sources: &[SourceArg],
    path: &PathArg,
    asked: &Asked,
    (threads, bounds): (NonZeroUsize, Bounds),
) -> Result<Term<'a>, Fail> {
    let groups = terms::with(sources, |sources| {
        query::grouped(sources, &path.0, &asked.0, threads, bounds.fields)
    })?;
    let mut map = Terms::new(env, bounds);
    for group in groups {
        map.put(&group.key, group.section, |terms| {
            let answers = group.answers.iter().map(|answer| {
                let number = answer.result().map_err(Error::from)?;
                terms.number(number.as_ref())
            });
            terms.list(answers.collect::<Result<_, _>>()?)
        })?;
    }
    Ok(map.finish())
}

#[nif]
fn folded_n<'a>(
    env: Env<'a>,
    sources: Vec<SourceArg>,
    initial: Vec<Initial<'a>>,
) -> Result<Term<'a>, Fail> {
    timed(env, || folded(env, &sources, &initial, Bounds::SHORT))
}

#[nif(schedule = "DirtyCpu", name = "folded_d")]
fn folded_dirty<'a>(
    env: Env<'a>,
    sources: Vec<SourceArg>,
    initial: Vec<Initial<'a>>,
) -> Result<Term<'a>, Fail> {
    folded(env, &sources, &initial, Bounds::LONG)
}

fn folded<'a>(
    env: Env<'a>,
    sources: &[SourceArg],
    initial: &[Initial<'a>],
    bounds: Bounds,
) -> Result<Term<'a>, Fail> {
    let start = initial.iter().enumerate();
    let start = start.map(|(place, field)| field.at(place));
    let fields = terms::with(sources, |sources| {
        query::folded(sources, start, bounds.fields)
    })?;
    let mut map = Terms::new(env, bounds);
    for field in fields {
        map.put(&field.key, field.section, |terms| {
            terms.field(&field.value, initial)
        })?;
    }
    Ok(map.finish())
}

#[nif]
fn projected_n<'a>(
    env: Env<'a>,
    source: SourceArg,
    paths: Vec<PathArg>,
    atoms: Atoms,
) -> Result<Term<'a>, Fail> {
    timed(env, || {
        projected(env, &source, paths, (atoms, Bounds::SHORT))
    })
}

#[nif(schedule = "DirtyCpu", name = "projected_d")]
fn projected_dirty<'a>(
    env: Env<'a>,
    source: SourceArg,
    paths: Vec<PathArg>,
    atoms: Atoms,
) -> Result<Term<'a>, Fail> {
    projected(env, &source, paths, (atoms, Bounds::LONG))
}

fn projected<'a>(
    env: Env<'a>,
    source: &SourceArg,
    paths: Vec<PathArg>,
    (atoms, bounds): (Atoms, Bounds),
) -> Result<Term<'a>, Fail> {
    let paths: Vec<_> = paths.into_iter().map(|path| path.0).collect();
    let mut rows = Rows::new(env, atoms, paths.len(), bounds);
    source.with(|source| {
        let count = query::projected(source, &paths, |_, found| rows.put(&found))?;
        rows.finish(count)
    })
}

/// Takes `{Version, Threads}`.
fn load(_env: Env, info: Term) -> bool {
    let Ok((version, threads)) = info.decode::<(Term, usize)>() else {
        return false;
    };
    THREADS.store(threads, Ordering::Relaxed);
    esdb_boundary::same_version(version)
}

rustler::init!("esdb_segment_nif", load = load);
