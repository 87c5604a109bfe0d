//! Signatures, digests and text encodings for tokens and identities.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

pub mod base58;
pub mod ed25519;

/// SHA-256 (FIPS 180-4).
#[must_use]
pub fn sha256(data: &[u8]) -> [u8; 32] {
    Sha256::digest(data).into()
}

/// HMAC with SHA-256 (RFC 2104).
#[must_use]
pub fn hmac_sha256(key: &[u8], data: &[u8]) -> [u8; 32] {
    // HMAC takes keys of any length, so there is always a state; the type of the crate does not say so.
    Hmac::<Sha256>::new_from_slice(key)
        .map(|state| state.chain_update(data).finalize().into_bytes().into())
        .unwrap_or_default()
}

/// Whether two secrets are equal, in a time that depends on their lengths alone.
#[must_use]
pub fn constant_time_eq(left: &[u8], right: &[u8]) -> bool {
    left.ct_eq(right).into()
}

/// How many characters [`base64_encode`] makes of so many bytes.
#[must_use]
pub fn base64_encoded_len(bytes: usize) -> Option<usize> {
    base64::encoded_len(bytes, false)
}

/// Base64 for URLs without padding (RFC 4648, section 5) into `text`, which has the encoded length.
///
/// Answers whether it had.
#[must_use]
pub fn base64_encode(data: &[u8], text: &mut [u8]) -> bool {
    URL_SAFE_NO_PAD
        .encode_slice(data, text)
        .is_ok_and(|written| written == text.len())
}

/// How many bytes [`base64_decode`] makes of so many characters, if they are valid.
#[must_use]
pub fn base64_decoded_len(characters: usize) -> usize {
    characters / 4 * 3 + characters % 4 * 3 / 4
}

/// The inverse of [`base64_encode`] into `data`, which has the decoded length.
///
/// Answers `false` for everything that is not an encoding: padding, white space, a character of another
/// alphabet, one character over, bits beyond the last byte that are not zero.
#[must_use]
pub fn base64_decode(text: &[u8], data: &mut [u8]) -> bool {
    URL_SAFE_NO_PAD
        .decode_slice_unchecked(text, data)
        .is_ok_and(|written| written == data.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(data: &[u8]) -> Vec<u8> {
        let mut text = vec![0; base64_encoded_len(data.len()).unwrap_or_default()];
        assert!(base64_encode(data, &mut text));
        text
    }

    fn decode(text: &[u8]) -> Option<Vec<u8>> {
        let mut data = vec![0; base64_decoded_len(text.len())];
        base64_decode(text, &mut data).then_some(data)
    }

    #[test]
    fn only_canonical_base64_decodes() {
        for text in [
            "A", "AAAAA", "AA==", "AB", "AAB", "A A", "AA\n", "+w", "/w", "A=", "\u{e9}",
        ] {
            assert_eq!(decode(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(decode(b"-_8"), Some(vec![0xfb, 0xff]));
        assert_eq!(decode(b""), Some(vec![]));
    }

    proptest! {
        #[test]
        fn base64_round_trip(data: Vec<u8>) {
            prop_assert_eq!(decode(&encode(&data)), Some(data));
        }

        #[test]
        fn what_decodes_is_its_own_encoding(text in "[A-Za-z0-9_+/=-]{0,12}") {
            if let Some(data) = decode(text.as_bytes()) {
                prop_assert_eq!(encode(&data), text.as_bytes());
            }
        }

        #[test]
        fn constant_time_eq_is_eq(left: Vec<u8>, right: Vec<u8>) {
            prop_assert_eq!(constant_time_eq(&left, &right), left == right);
            prop_assert!(constant_time_eq(&left, &left));
        }
    }
}
