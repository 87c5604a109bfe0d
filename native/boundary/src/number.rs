//! Numbers of Erlang as those of [`esdb_core::number`], and back.

use esdb_core::number::{Big, Number};
use rustler::{Encoder, Env, Term, TermType};

/// External term format: the version that begins it, and integers with a length of one byte or of four.
const VERSION: u8 = 131;
const SMALL_BIG: u8 = 110;
const LARGE_BIG: u8 = 111;

/// The number that a term is, if it is one.
#[inline]
#[must_use]
pub fn decode(term: Term) -> Option<Number> {
    match term.get_type() {
        TermType::Integer => term
            .decode()
            .map(Number::Int)
            .ok()
            .or_else(|| decode_big(term)),
        TermType::Float => term.decode().ok().and_then(Number::float),
        _ => None,
    }
}

/// The term of a number; `None` for an integer that the virtual machine does not take.
#[inline]
#[must_use]
pub fn encode<'a>(env: Env<'a>, number: &Number) -> Option<Term<'a>> {
    match number {
        Number::Int(int) => Some(int.encode(env)),
        Number::Float(float) => Some(float.encode(env)),
        Number::Big(big) => encode_big(env, big),
    }
}

/// The interface of NIFs has nothing for such integers but the external term format.
#[cold]
fn decode_big(term: Term) -> Option<Number> {
    let external = term.to_binary();
    let (sign, magnitude) = match external.as_slice() {
        [VERSION, SMALL_BIG, _, sign, magnitude @ ..]
        | [VERSION, LARGE_BIG, _, _, _, _, sign, magnitude @ ..] => (*sign, magnitude),
        _ => return None,
    };
    Number::from_le_bytes(sign != 0, magnitude)
}

#[cold]
fn encode_big<'a>(env: Env<'a>, big: &Big) -> Option<Term<'a>> {
    let (negative, magnitude) = big.to_le_bytes();
    let mut external = vec![VERSION];
    if let Ok(length) = u8::try_from(magnitude.len()) {
        external.extend([SMALL_BIG, length]);
    } else {
        external.push(LARGE_BIG);
        external.extend(u32::try_from(magnitude.len()).ok()?.to_be_bytes());
    }
    external.push(u8::from(negative));
    external.extend(magnitude);
    env.binary_to_term(&external).map(|(term, _)| term)
}
