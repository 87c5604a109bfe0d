//! NIFs of the Erlang module `esdb_runs_nif`: terms in, `esdb_core::runs`, terms out.
//!
//! The Erlang wrappers have flattened the arguments. A function on a dirty scheduler ends in `_dirty` here and in
//! `_d` there, one on a normal scheduler in `_n`.

use esdb_core::runs::{self, RunsError};
use rustler::{Atom, Binary, Env, Error, NewBinary, NifResult, Term, nif};

#[nif]
fn implementation() -> Atom {
    esdb_boundary::implementation()
}

/// Bytes that are sorted, and merged, in a hundredth of a millisecond.
const SORT_A_PERCENT: usize = 3_000;
const MERGE_A_PERCENT: usize = 20_000;

#[nif]
fn sort_n<'a>(env: Env<'a>, records: Binary, width: usize) -> NifResult<Binary<'a>> {
    esdb_boundary::charge(env, records.len(), SORT_A_PERCENT);
    sorted(env, &records, width)
}

#[nif(schedule = "DirtyCpu", name = "sort_d")]
fn sort_dirty<'a>(env: Env<'a>, records: Binary, width: usize) -> NifResult<Binary<'a>> {
    sorted(env, &records, width)
}

fn sorted<'a>(env: Env<'a>, records: &[u8], width: usize) -> NifResult<Binary<'a>> {
    let mut sorted = NewBinary::new(env, records.len());
    runs::sort(records, width, &mut sorted).map_err(refused)?;
    Ok(sorted.into())
}

#[nif]
fn merge_n<'a>(env: Env<'a>, runs: Vec<Binary>, width: usize) -> NifResult<Binary<'a>> {
    let merged = merged(env, &runs, width)?;
    esdb_boundary::charge(env, merged.len(), MERGE_A_PERCENT);
    Ok(merged)
}

#[nif(schedule = "DirtyCpu", name = "merge_d")]
fn merge_dirty<'a>(env: Env<'a>, runs: Vec<Binary>, width: usize) -> NifResult<Binary<'a>> {
    merged(env, &runs, width)
}

fn merged<'a>(env: Env<'a>, runs: &[Binary], width: usize) -> NifResult<Binary<'a>> {
    let runs: Vec<&[u8]> = runs.iter().map(|run| run.as_slice()).collect();
    let mut merged = NewBinary::new(env, runs.iter().map(|run| run.len()).sum());
    runs::merge(&runs, width, &mut merged).map_err(refused)?;
    Ok(merged.into())
}

fn refused(_: RunsError) -> Error {
    Error::BadArg
}

fn load(_env: Env, info: Term) -> bool {
    esdb_boundary::same_version(info)
}

rustler::init!("esdb_runs_nif", load = load);
