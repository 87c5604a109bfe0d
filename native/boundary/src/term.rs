//! Terms looked at in the loops that decide how fast a function over many terms is.
//!
//! rustler answers with a `NifResult`, whose error is large: each answer is written to the stack and read back in
//! pieces of other sizes, which the processor cannot forward. For four questions to a term that was two thirds of
//! the time of a group-by over maps (measured). These answer the same in registers.

use std::mem::MaybeUninit;

use rustler::{Env, Term, sys, wrapper};

/// The value of a key; `None` also for what is no map.
#[inline]
#[must_use]
pub fn get<'a>(map: Term<'a>, key: Term<'a>) -> Option<Term<'a>> {
    let env = map.get_env();
    // SAFETY: both terms are of this environment, as their lifetime says, and so is the value.
    unsafe {
        let value = wrapper::map::get_map_value(env.as_c_arg(), map.as_c_arg(), key.as_c_arg());
        value.map(|value| Term::new(env, value))
    }
}

/// The head and the tail of a list; `None` for an empty one, and for what is none.
#[inline]
#[must_use]
pub fn cell<'a>(list: Term<'a>) -> Option<(Term<'a>, Term<'a>)> {
    let env = list.get_env();
    // SAFETY: the term is of this environment, as its lifetime says, and so are its parts.
    unsafe {
        let cell = wrapper::list::get_list_cell(env.as_c_arg(), list.as_c_arg());
        cell.map(|(head, tail)| (Term::new(env, head), Term::new(env, tail)))
    }
}

/// The integer, where the term is one and fits.
#[inline]
#[must_use]
pub fn int(term: Term) -> Option<i64> {
    let mut int = 0;
    // SAFETY: the term is of its environment; the answer is written where it has its place.
    let fits = unsafe { sys::enif_get_int64(term.get_env().as_c_arg(), term.as_c_arg(), &mut int) };
    (fits != 0).then_some(int)
}

/// The bytes, where the term is a binary.
#[inline]
#[must_use]
pub fn bytes<'a>(term: Term<'a>) -> Option<&'a [u8]> {
    let env: Env<'a> = term.get_env();
    let mut binary = MaybeUninit::uninit();
    // SAFETY: the term is of its environment; what is written is only read after a success. The bytes live as
    // long as the term does: a NIF's environment collects no garbage. Those of an empty binary may be nowhere.
    unsafe {
        let is_binary =
            sys::enif_inspect_binary(env.as_c_arg(), term.as_c_arg(), binary.as_mut_ptr());
        if is_binary == 0 {
            return None;
        }
        let binary: sys::ErlNifBinary = binary.assume_init();
        if binary.size == 0 {
            return Some(&[]);
        }
        Some(std::slice::from_raw_parts(binary.data, binary.size))
    }
}
