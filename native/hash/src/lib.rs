//! NIFs of the Erlang module `esdb_hash_nif`: terms in, `esdb_core::hash`, terms out.
//!
//! The Erlang wrappers have checked and flattened the arguments. A function on a dirty scheduler ends in
//! `_dirty` here and in `_d` there, one on a normal scheduler in `_n`.

use std::num::NonZeroU32;

use esdb_core::hash;
use rustler::{
    Atom, Binary, Env, Error, ListIterator, NifResult, Resource, ResourceArc, Term, nif,
};

#[nif]
fn implementation() -> Atom {
    esdb_boundary::implementation()
}

/// Bytes that are hashed in a hundredth of a millisecond.
const XXH_A_PERCENT: usize = 100_000;
const FNV_A_PERCENT: usize = 8_000;

#[nif]
fn fnv1a_n(env: Env, data: Binary) -> u64 {
    esdb_boundary::charge(env, data.len(), FNV_A_PERCENT);
    hash::fnv1a(&data)
}

#[nif(schedule = "DirtyCpu", name = "fnv1a_d")]
fn fnv1a_dirty(data: Binary) -> u64 {
    hash::fnv1a(&data)
}

#[nif]
fn xxhash64_n(env: Env, data: Binary, seed: u64) -> u64 {
    esdb_boundary::charge(env, data.len(), XXH_A_PERCENT);
    hash::xxhash64(&data, seed)
}

#[nif(schedule = "DirtyCpu", name = "xxhash64_d")]
fn xxhash64_dirty(data: Binary, seed: u64) -> u64 {
    hash::xxhash64(&data, seed)
}

#[nif]
fn xxhash3_n(env: Env, data: Binary) -> u64 {
    esdb_boundary::charge(env, data.len(), XXH_A_PERCENT);
    hash::xxhash3(&data)
}

#[nif(schedule = "DirtyCpu", name = "xxhash3_d")]
fn xxhash3_dirty(data: Binary) -> u64 {
    hash::xxhash3(&data)
}

#[nif(name = "xxhash3_n")]
fn xxhash3_seeded(env: Env, data: Binary, seed: u64) -> u64 {
    esdb_boundary::charge(env, data.len(), XXH_A_PERCENT);
    hash::xxhash3_seeded(&data, seed)
}

#[nif(schedule = "DirtyCpu", name = "xxhash3_d")]
fn xxhash3_seeded_dirty(data: Binary, seed: u64) -> u64 {
    hash::xxhash3_seeded(&data, seed)
}

#[nif]
fn partition_n(env: Env, data: Binary, partitions: u32) -> NifResult<u32> {
    esdb_boundary::charge(env, data.len(), XXH_A_PERCENT);
    Ok(hash::partition(&data, non_zero(partitions)?))
}

#[nif(schedule = "DirtyCpu", name = "partition_d")]
fn partition_dirty(data: Binary, partitions: u32) -> NifResult<u32> {
    Ok(hash::partition(&data, non_zero(partitions)?))
}

#[nif]
fn partitions_n(items: ListIterator, partitions: u32) -> NifResult<Vec<u32>> {
    partition_each(items, partitions)
}

#[nif(schedule = "DirtyCpu", name = "partitions_d")]
fn partitions_dirty(items: ListIterator, partitions: u32) -> NifResult<Vec<u32>> {
    partition_each(items, partitions)
}

#[nif]
fn stream_partition_n(env: Env, store: Binary, stream: Binary, partitions: u32) -> NifResult<u32> {
    esdb_boundary::charge(env, store.len() + stream.len(), XXH_A_PERCENT);
    Ok(hash::stream_partition(
        &store,
        &stream,
        non_zero(partitions)?,
    ))
}

#[nif(schedule = "DirtyCpu", name = "stream_partition_d")]
fn stream_partition_dirty(store: Binary, stream: Binary, partitions: u32) -> NifResult<u32> {
    Ok(hash::stream_partition(
        &store,
        &stream,
        non_zero(partitions)?,
    ))
}

/// A state is never changed once Erlang has seen it: an update makes a new one.
struct State(hash::Xxh3);

#[rustler::resource_impl]
impl Resource for State {}

#[nif(name = "new_n")]
fn new(seed: u64) -> ResourceArc<State> {
    ResourceArc::new(State(hash::Xxh3::new(seed)))
}

#[nif]
fn update_n(env: Env, state: ResourceArc<State>, data: Binary) -> ResourceArc<State> {
    esdb_boundary::charge(env, data.len(), XXH_A_PERCENT);
    updated(&state, &data)
}

#[nif(schedule = "DirtyCpu", name = "update_d")]
fn update_dirty(state: ResourceArc<State>, data: Binary) -> ResourceArc<State> {
    updated(&state, &data)
}

#[nif(name = "digest_n")]
fn digest(state: ResourceArc<State>) -> u64 {
    state.0.digest()
}

fn updated(state: &State, data: &[u8]) -> ResourceArc<State> {
    let mut next = state.0.clone();
    next.update(data);
    ResourceArc::new(State(next))
}

fn partition_each(items: ListIterator, partitions: u32) -> NifResult<Vec<u32>> {
    let partitions = non_zero(partitions)?;
    items
        .map(|item| Ok(hash::partition(&item.decode::<Binary>()?, partitions)))
        .collect()
}

fn non_zero(partitions: u32) -> NifResult<NonZeroU32> {
    NonZeroU32::new(partitions).ok_or(Error::BadArg)
}

fn load(_env: Env, info: Term) -> bool {
    esdb_boundary::same_version(info)
}

rustler::init!("esdb_hash_nif", load = load);
