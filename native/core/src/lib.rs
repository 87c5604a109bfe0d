//! The logic of `erl_esdb_nifs`, free of Erlang.
//!
//! Every module here has a twin in pure Erlang (`src/esdb_*_erl.erl`) that answers the same for every
//! input. The crates beside this one only carry terms in and out.
#![forbid(unsafe_code)]

pub mod aggregate;
pub mod archive;
pub mod crypto;
pub mod etf;
pub mod graph;
pub mod hash;
pub mod number;
pub mod pattern;
pub mod predicate;
pub mod query;
pub mod ranges;
pub mod runs;
pub mod segment;
