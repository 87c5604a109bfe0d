//! NIFs of the Erlang module `esdb_crypto_nif`: terms in, `esdb_core::crypto`, terms out.
//!
//! The Erlang wrappers have checked and flattened the arguments. A function on a dirty scheduler ends in
//! `_dirty` here and in `_d` there, one on a normal scheduler in `_n`.

use esdb_core::crypto::{self, base58, ed25519};
use rustler::{
    Atom, Binary, Encoder, Env, Error, NewBinary, NifResult, Resource, ResourceArc, Term, nif,
};

mod atoms {
    rustler::atoms! { ok, error, invalid_base64, invalid_base58_char, too_large, invalid_key, esdb_ed25519_key }
}

#[nif]
fn implementation() -> Atom {
    esdb_boundary::implementation()
}

/// What a hundredth of a millisecond does: bytes of a message that are hashed, and what a signature costs
/// in such bytes; bytes that are encoded or decoded as Base64, where the memory for the answer is new
/// (0.4 to 1.2 ns a byte), or that are compared (0.7).
const SIGNED_A_PERCENT: usize = 4_000;
const SIGNATURE: usize = 5 * SIGNED_A_PERCENT;
const TEXT_A_PERCENT: usize = 8_000;
/// The same for Base58, whose work grows with the square of the length.
const BASE58_A_PERCENT: usize = 100_000;

#[nif]
fn verify_n(env: Env, message: Binary, signature: Binary, key: Key) -> bool {
    esdb_boundary::charge(env, SIGNATURE + message.len(), SIGNED_A_PERCENT);
    key.verify(&message, &signature)
}

#[nif(schedule = "DirtyCpu", name = "verify_d")]
fn verify_dirty(message: Binary, signature: Binary, key: Key) -> bool {
    key.verify(&message, &signature)
}

#[nif]
fn verify_batch_n(env: Env, items: Vec<Term>) -> Vec<bool> {
    esdb_boundary::charge(env, SIGNATURE * items.len(), SIGNED_A_PERCENT);
    verify_batch(&items)
}

#[nif(schedule = "DirtyCpu", name = "verify_batch_d")]
fn verify_batch_dirty(items: Vec<Term>) -> Vec<bool> {
    verify_batch(&items)
}

/// The wrapper has put an atom in the place of each item that is none.
fn verify_batch(terms: &[Term]) -> Vec<bool> {
    let items: Vec<Option<(Binary, Binary, Key)>> =
        terms.iter().map(|term| term.decode().ok()).collect();
    let questions: Vec<ed25519::Item> = items
        .iter()
        .flatten()
        .map(|(message, signature, key)| ed25519::Item {
            message,
            signature,
            key: key.as_item(),
        })
        .collect();
    let mut answers = ed25519::verify_batch(&questions).into_iter();
    items
        .iter()
        .map(|item| item.is_some() && answers.next().unwrap_or(false))
        .collect()
}

/// A prepared key in memory.
struct Prepared(ed25519::PreparedKey);

#[rustler::resource_impl]
impl Resource for Prepared {}

/// A key as Erlang gives it: encoded, or the handle `{esdb_ed25519_key, Encoded, Ref}`.
///
/// The bytes say which key it is. The reference only counts if it is to that key in this library.
struct Key<'a> {
    encoded: Binary<'a>,
    prepared: Option<ResourceArc<Prepared>>,
}

impl<'a> rustler::Decoder<'a> for Key<'a> {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        if let Ok(encoded) = term.decode() {
            return Ok(Self {
                encoded,
                prepared: None,
            });
        }
        let (kind, encoded, reference): (Atom, Binary, Term) = term.decode()?;
        if kind != atoms::esdb_ed25519_key() {
            return Err(Error::BadArg);
        }
        let prepared = reference
            .decode::<ResourceArc<Prepared>>()
            .ok()
            .filter(|prepared| prepared.0.encoding()[..] == *encoded.as_slice());
        Ok(Self { encoded, prepared })
    }
}

impl Key<'_> {
    fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.prepared {
            Some(prepared) => prepared.0.verify(message, signature),
            None => ed25519::verify(message, signature, &self.encoded),
        }
    }

    fn as_item(&self) -> ed25519::ItemKey<'_> {
        match &self.prepared {
            Some(prepared) => ed25519::ItemKey::Prepared(&prepared.0),
            None => ed25519::ItemKey::Encoded(&self.encoded),
        }
    }
}

#[nif]
fn verify_key_n<'a>(env: Env<'a>, key: Binary<'a>) -> Term<'a> {
    esdb_boundary::charge(env, SIGNATURE, SIGNED_A_PERCENT);
    match ed25519::PreparedKey::new(&key) {
        Some(prepared) => {
            let handle = (
                atoms::esdb_ed25519_key(),
                key,
                ResourceArc::new(Prepared(prepared)),
            );
            (atoms::ok(), handle).encode(env)
        }
        None => (atoms::error(), atoms::invalid_key()).encode(env),
    }
}

#[nif]
fn sign_n<'a>(env: Env<'a>, message: Binary<'a>, private_key: Binary<'a>) -> NifResult<Binary<'a>> {
    // A signature hashes its message twice.
    esdb_boundary::charge(env, SIGNATURE + 2 * message.len(), SIGNED_A_PERCENT);
    sign(env, &message, &private_key)
}

#[nif(schedule = "DirtyCpu", name = "sign_d")]
fn sign_dirty<'a>(
    env: Env<'a>,
    message: Binary<'a>,
    private_key: Binary<'a>,
) -> NifResult<Binary<'a>> {
    sign(env, &message, &private_key)
}

fn sign<'a>(env: Env<'a>, message: &[u8], private_key: &[u8]) -> NifResult<Binary<'a>> {
    let private_key = private_key.try_into().map_err(|_| Error::BadArg)?;
    Ok(binary(env, &ed25519::sign(message, private_key)))
}

#[nif]
fn sha256_n<'a>(env: Env<'a>, data: Binary<'a>) -> Binary<'a> {
    binary(env, &crypto::sha256(&data))
}

#[nif]
fn sha256_base64_n<'a>(env: Env<'a>, data: Binary<'a>) -> NifResult<Binary<'a>> {
    encode_base64(env, &crypto::sha256(&data))
}

#[nif]
fn hmac_sha256_n<'a>(env: Env<'a>, key: Binary<'a>, data: Binary<'a>) -> Binary<'a> {
    esdb_boundary::charge(env, key.len() + data.len(), SIGNED_A_PERCENT);
    binary(env, &crypto::hmac_sha256(&key, &data))
}

#[nif]
fn base64_encode_n<'a>(env: Env<'a>, data: Binary<'a>) -> NifResult<Binary<'a>> {
    esdb_boundary::charge(env, data.len(), TEXT_A_PERCENT);
    encode_base64(env, &data)
}

#[nif(schedule = "DirtyCpu", name = "base64_encode_d")]
fn base64_encode_dirty<'a>(env: Env<'a>, data: Binary<'a>) -> NifResult<Binary<'a>> {
    encode_base64(env, &data)
}

fn encode_base64<'a>(env: Env<'a>, data: &[u8]) -> NifResult<Binary<'a>> {
    let length = crypto::base64_encoded_len(data.len()).ok_or(Error::BadArg)?;
    let mut text = NewBinary::new(env, length);
    if crypto::base64_encode(data, text.as_mut_slice()) {
        Ok(text.into())
    } else {
        Err(Error::BadArg)
    }
}

#[nif]
fn base64_decode_n<'a>(env: Env<'a>, text: Binary<'a>) -> Term<'a> {
    esdb_boundary::charge(env, text.len(), TEXT_A_PERCENT);
    decode_base64(env, &text)
}

#[nif(schedule = "DirtyCpu", name = "base64_decode_d")]
fn base64_decode_dirty<'a>(env: Env<'a>, text: Binary<'a>) -> Term<'a> {
    decode_base64(env, &text)
}

fn decode_base64<'a>(env: Env<'a>, text: &[u8]) -> Term<'a> {
    let mut data = NewBinary::new(env, crypto::base64_decoded_len(text.len()));
    if crypto::base64_decode(text, data.as_mut_slice()) {
        (atoms::ok(), Binary::from(data)).encode(env)
    } else {
        (atoms::error(), atoms::invalid_base64()).encode(env)
    }
}

#[nif]
fn equal_n(env: Env, left: Binary, right: Binary) -> bool {
    esdb_boundary::charge(env, left.len(), TEXT_A_PERCENT);
    crypto::constant_time_eq(&left, &right)
}

#[nif(schedule = "DirtyCpu", name = "equal_d")]
fn equal_dirty(left: Binary, right: Binary) -> bool {
    crypto::constant_time_eq(&left, &right)
}

#[nif]
fn base58_encode_n<'a>(env: Env<'a>, data: Binary<'a>) -> NifResult<Binary<'a>> {
    esdb_boundary::charge(env, data.len() * data.len(), BASE58_A_PERCENT);
    encode_base58(env, &data)
}

#[nif(schedule = "DirtyCpu", name = "base58_encode_d")]
fn base58_encode_dirty<'a>(env: Env<'a>, data: Binary<'a>) -> NifResult<Binary<'a>> {
    encode_base58(env, &data)
}

fn encode_base58<'a>(env: Env<'a>, data: &[u8]) -> NifResult<Binary<'a>> {
    base58::encode(data)
        .map(|text| binary(env, &text))
        .map_err(|_| Error::BadArg)
}

#[nif]
fn base58_decode_n<'a>(env: Env<'a>, text: Binary<'a>) -> Term<'a> {
    esdb_boundary::charge(env, text.len() * text.len(), BASE58_A_PERCENT);
    decode_base58(env, &text)
}

#[nif(schedule = "DirtyCpu", name = "base58_decode_d")]
fn base58_decode_dirty<'a>(env: Env<'a>, text: Binary<'a>) -> Term<'a> {
    decode_base58(env, &text)
}

fn decode_base58<'a>(env: Env<'a>, text: &[u8]) -> Term<'a> {
    match base58::decode(text) {
        Ok(data) => (atoms::ok(), binary(env, &data)).encode(env),
        Err(base58::Base58Error::TooLarge) => (atoms::error(), atoms::too_large()).encode(env),
        Err(base58::Base58Error::InvalidChar(character)) => {
            (atoms::error(), (atoms::invalid_base58_char(), character)).encode(env)
        }
    }
}

fn binary<'a>(env: Env<'a>, bytes: &[u8]) -> Binary<'a> {
    let mut binary = NewBinary::new(env, bytes.len());
    binary.as_mut_slice().copy_from_slice(bytes);
    binary.into()
}

fn load(_env: Env, info: Term) -> bool {
    esdb_boundary::same_version(info)
}

rustler::init!("esdb_crypto_nif", load = load);
