//! Ed25519 (RFC 8032), verified strictly.
//!
//! A signature (R, S) of a message by a key A is valid if the encoding of S·B - k·A, k being the hash of
//! R, A and the message, is R: the check without the cofactor. Refused besides that, because signers never
//! make them and implementations differ on them: S not below the group's order L, a y-coordinate not below
//! p in A or R, and A or R of small order. "Taming the many EdDSAs" (Chalkias, Garillot, Nikolaenko, 2020)
//! tells these cases apart; `test/vectors/crypto.json` has one of each.
//!
//! Comparing encodings spares decoding R: what is computed is canonical, so an R that is not never equals.

use std::collections::HashMap;

use curve25519_dalek::{
    edwards::{CompressedEdwardsY, EdwardsPoint},
    scalar::Scalar,
};
use ed25519_dalek::{Signer, SigningKey};
use sha2::{Digest, Sha512};

type Encoding = [u8; 32];

/// The y-coordinates of the eight points whose order divides 8, without the sign of x.
const SMALL_ORDER: [Encoding; 5] = [
    [0; 32],
    {
        let mut one = [0; 32];
        one[0] = 1;
        one
    },
    {
        let mut minus_one = [0xff; 32];
        minus_one[0] = 0xec;
        minus_one[31] = 0x7f;
        minus_one
    },
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98,
        0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53,
        0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67,
        0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac,
        0x03, 0x7a,
    ],
];

/// The signature of `message` with a private key (the seed of RFC 8032).
#[must_use]
pub fn sign(message: &[u8], private_key: &[u8; 32]) -> [u8; 64] {
    SigningKey::from_bytes(private_key).sign(message).to_bytes()
}

/// Whether `signature` is a valid signature of `message` by `key`. Wrong lengths are not valid.
#[must_use]
pub fn verify(message: &[u8], signature: &[u8], key: &[u8]) -> bool {
    PreparedKey::new(key).is_some_and(|key| key.verify(message, signature))
}

/// A public key, decoded and found to be acceptable, for many signatures.
///
/// Tables of multiples of the key would save additions, but not with dalek's: its general
/// multiplication with tables of two points is slower than the one for any point and the base point.
pub struct PreparedKey {
    encoding: Encoding,
    minus_point: EdwardsPoint,
}

impl PreparedKey {
    /// The key, unless it is not one: not 32 bytes, not on the curve, not canonical, of small order.
    #[must_use]
    pub fn new(key: &[u8]) -> Option<Self> {
        let encoding = acceptable(key)?;
        let point = CompressedEdwardsY(encoding).decompress()?;
        Some(Self {
            encoding,
            minus_point: -point,
        })
    }

    /// The 32 bytes that the key was made from.
    #[must_use]
    pub fn encoding(&self) -> &[u8; 32] {
        &self.encoding
    }

    /// The same as [`verify`] with the key's encoding, faster.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        Signature::parse(signature)
            .is_some_and(|signature| signature.is(&self.candidate(&signature, message).compress()))
    }

    /// The point that a valid signature has as R: S·B - k·A.
    fn candidate(&self, signature: &Signature, message: &[u8]) -> EdwardsPoint {
        let k = signature.challenge(&self.encoding, message);
        EdwardsPoint::vartime_double_scalar_mul_basepoint(&k, &self.minus_point, &signature.s)
    }
}

/// A question of a batch.
#[derive(Clone, Copy)]
pub struct Item<'a> {
    /// What was signed.
    pub message: &'a [u8],
    /// The signature, 64 bytes if it is one.
    pub signature: &'a [u8],
    /// By whom.
    pub key: ItemKey<'a>,
}

/// A key as it comes: encoded or prepared.
#[derive(Clone, Copy)]
pub enum ItemKey<'a> {
    /// Its encoding, 32 bytes if it is one.
    Encoded(&'a [u8]),
    /// Prepared before.
    Prepared(&'a PreparedKey),
}

/// [`verify`] of each item.
///
/// The answers are those of single calls, always: the randomized equation that checks many signatures at
/// once accepts some with a small-order part in R by chance. What is shared is the work that does not
/// depend on the answer: each key is decoded once, and one inversion serves all encodings.
#[must_use]
pub fn verify_batch(items: &[Item]) -> Vec<bool> {
    let keys = Keys::of(items);
    let parsed: Vec<Option<(Signature, EdwardsPoint)>> = items
        .iter()
        .map(|item| {
            let signature = Signature::parse(item.signature)?;
            let candidate = keys.get(item.key)?.candidate(&signature, item.message);
            Some((signature, candidate))
        })
        .collect();
    let candidates: Vec<EdwardsPoint> = parsed
        .iter()
        .flatten()
        .map(|(_, candidate)| *candidate)
        .collect();
    let mut encodings = EdwardsPoint::compress_batch_alloc(&candidates).into_iter();
    parsed
        .iter()
        .map(|question| match question {
            Some((signature, _)) => encodings
                .next()
                .is_some_and(|encoding| signature.is(&encoding)),
            None => false,
        })
        .collect()
}

/// The keys of a batch, each decoded once; `None` for what is no key.
struct Keys<'a>(HashMap<&'a [u8], Option<PreparedKey>>);

impl<'a> Keys<'a> {
    fn of(items: &[Item<'a>]) -> Self {
        let mut keys = HashMap::new();
        for item in items {
            if let ItemKey::Encoded(key) = item.key {
                keys.entry(key).or_insert_with(|| PreparedKey::new(key));
            }
        }
        Self(keys)
    }

    fn get<'b>(&'b self, key: ItemKey<'b>) -> Option<&'b PreparedKey> {
        match key {
            ItemKey::Prepared(prepared) => Some(prepared),
            ItemKey::Encoded(encoding) => self.0.get(encoding)?.as_ref(),
        }
    }
}

/// A signature with a canonical S and an R that can be valid.
struct Signature {
    r: Encoding,
    s: Scalar,
}

impl Signature {
    fn parse(signature: &[u8]) -> Option<Self> {
        let (r, s) = signature.split_at_checked(32)?;
        let s = Scalar::from_canonical_bytes(s.try_into().ok()?);
        Some(Self {
            r: acceptable(r)?,
            s: Option::from(s)?,
        })
    }

    fn challenge(&self, key: &Encoding, message: &[u8]) -> Scalar {
        let hash = Sha512::new()
            .chain_update(self.r)
            .chain_update(key)
            .chain_update(message);
        Scalar::from_bytes_mod_order_wide(&hash.finalize().into())
    }

    fn is(&self, candidate: &CompressedEdwardsY) -> bool {
        self.r == candidate.0
    }
}

/// The encoding, if its y-coordinate is below p and not that of a point of small order.
fn acceptable(bytes: &[u8]) -> Option<Encoding> {
    let encoding: Encoding = bytes.try_into().ok()?;
    let mut y = encoding;
    y[31] &= 0x7f;
    // p = 2^255 - 19: only values whose bytes above the first are all ones can reach it.
    let [first, middle @ .., last] = y;
    let canonical = first < 0xed || last != 0x7f || middle.iter().any(|byte| *byte != 0xff);
    (canonical && !SMALL_ORDER.contains(&y)).then_some(encoding)
}
