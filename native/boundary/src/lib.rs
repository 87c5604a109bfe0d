//! What all NIF crates share at the border to Erlang.

pub mod number;
pub mod term;

use rustler::{Atom, Decoder, Env, Term};

/// Each call of a NIF allocates for its arguments; see `doc/adr/0020-mimalloc-on-glibc.md` for what that costs.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The version of the Erlang application this library was built for.
pub const VERSION: &str = env!("ESDB_VSN");

/// Whether the Erlang module that loads this library is of the same version.
///
/// `erlang:load_nif/2` hands the module's version over as a string; a library of another version would
/// silently leave functions in Erlang that it does not know, so it refuses to load.
#[must_use]
pub fn same_version(load_info: Term) -> bool {
    String::decode(load_info).is_ok_and(|version| version == VERSION)
}

mod atoms {
    rustler::atoms! { nif }
}

/// What `implementation/0` of every module answers once its library is loaded.
#[must_use]
pub fn implementation() -> Atom {
    atoms::nif()
}

/// Tells the scheduler that this call did `work` units, of which `a_percent` fill a hundredth of a
/// process's timeslice (a timeslice is about a millisecond).
///
/// The scheduler cannot see how long native code runs. Without this a process that makes many calls of a
/// tenth of a millisecond each would not be interrupted for a long time.
#[inline]
pub fn charge(env: Env, work: usize, a_percent: usize) {
    if work >= a_percent {
        let percent = i32::try_from(work / a_percent).unwrap_or(100);
        rustler::schedule::consume_timeslice(env, percent.min(100));
    }
}
