//! NIFs of the Erlang module `esdb_hash_nif`: terms in, `esdb_core::hash`, terms out.

use rustler::{Atom, Binary, Env, Term, nif};

#[nif]
fn implementation() -> Atom {
    esdb_boundary::implementation()
}

#[nif]
fn fnv1a_n(data: Binary) -> u64 {
    esdb_core::hash::fnv1a(&data)
}

#[nif(schedule = "DirtyCpu", name = "fnv1a_d")]
fn fnv1a_dirty(data: Binary) -> u64 {
    esdb_core::hash::fnv1a(&data)
}

fn load(_env: Env, info: Term) -> bool {
    esdb_boundary::same_version(info)
}

rustler::init!("esdb_hash_nif", load = load);
