//! The vectors of `test/vectors/crypto.json`, the same that the Erlang suites read.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod vectors;

use esdb_core::crypto::{self, base58, ed25519};
use proptest::prelude::*;
use serde_json::Value;
use vectors::{bytes, rows};

/// The answer, the same from the plain call, a prepared key and a batch in which the key is prepared.
fn verify(message: &[u8], signature: &[u8], key: &[u8]) -> bool {
    let plain = ed25519::verify(message, signature, key);
    let prepared = ed25519::PreparedKey::new(key);
    assert_eq!(
        prepared
            .as_ref()
            .is_some_and(|key| key.verify(message, signature)),
        plain
    );
    let item = |key| ed25519::Item {
        message,
        signature,
        key,
    };
    let mut items = vec![item(ed25519::ItemKey::Encoded(key)); 4];
    items.extend(
        prepared
            .iter()
            .map(|key| item(ed25519::ItemKey::Prepared(key))),
    );
    assert_eq!(ed25519::verify_batch(&items), vec![plain; items.len()]);
    plain
}

fn signed(row: &Value) -> [Vec<u8>; 3] {
    ["message", "signature", "key"].map(|name| bytes(&row[name]))
}

#[test]
fn ed25519_of_the_rfc() {
    for row in rows("crypto", "ed25519") {
        let [message, signature, key] = signed(&row);
        let private: [u8; 32] = bytes(&row["private"]).try_into().unwrap();
        assert_eq!(ed25519::sign(&message, &private)[..], signature, "{row}");
        assert!(verify(&message, &signature, &key), "{row}");
        assert!(
            !verify(&[&message[..], b"!"].concat(), &signature, &key),
            "{row}"
        );
    }
}

#[test]
fn ed25519_at_the_edges() {
    for row in rows("crypto", "ed25519_edge") {
        let [message, signature, key] = signed(&row);
        assert_eq!(
            verify(&message, &signature, &key),
            row["valid"].as_bool().unwrap(),
            "{row}"
        );
    }
}

/// One batch of all cases: an answer does not depend on the others.
#[test]
fn ed25519_in_one_batch() {
    let rows = rows("crypto", "ed25519_edge");
    let cases: Vec<_> = rows.iter().map(signed).collect();
    let items: Vec<_> = cases
        .iter()
        .map(|[message, signature, key]| ed25519::Item {
            message,
            signature,
            key: ed25519::ItemKey::Encoded(key),
        })
        .collect();
    let expected: Vec<_> = rows
        .iter()
        .map(|row| row["valid"].as_bool().unwrap())
        .collect();
    assert_eq!(ed25519::verify_batch(&items), expected);
}

#[test]
fn digests() {
    for row in rows("crypto", "sha256") {
        assert_eq!(crypto::sha256(&bytes(&row[0]))[..], bytes(&row[1]), "{row}");
    }
    for row in rows("crypto", "hmac_sha256") {
        assert_eq!(
            crypto::hmac_sha256(&bytes(&row[0]), &bytes(&row[1]))[..],
            bytes(&row[2]),
            "{row}"
        );
    }
}

#[test]
fn base64() {
    for row in rows("crypto", "base64") {
        let (data, text) = (bytes(&row[0]), row[1].as_str().unwrap().as_bytes());
        let mut encoded = vec![0; crypto::base64_encoded_len(data.len()).unwrap()];
        assert!(crypto::base64_encode(&data, &mut encoded));
        assert_eq!(encoded, text, "{row}");
        let mut decoded = vec![0; crypto::base64_decoded_len(text.len())];
        assert!(crypto::base64_decode(text, &mut decoded));
        assert_eq!(decoded, data, "{row}");
    }
    for text in rows("crypto", "base64_invalid") {
        let text = text.as_str().unwrap();
        assert!(
            !crypto::base64_decode(
                text.as_bytes(),
                &mut vec![0; crypto::base64_decoded_len(text.len())]
            ),
            "{text}"
        );
    }
}

#[test]
fn base58_both_ways() {
    for row in rows("crypto", "base58") {
        let (data, text) = (bytes(&row[0]), row[1].as_str().unwrap().as_bytes());
        assert_eq!(base58::encode(&data).unwrap(), text, "{row}");
        assert_eq!(base58::decode(text).unwrap(), data, "{row}");
    }
    for row in rows("crypto", "base58_invalid") {
        let character = row[1].as_u64().unwrap() as u8;
        let text = row[0].as_str().unwrap().as_bytes();
        assert_eq!(
            base58::decode(text),
            Err(base58::Base58Error::InvalidChar(character)),
            "{row}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The dalek crate is stricter than the RFC in the same way, and decides by another route.
    #[test]
    fn dalek_agrees(private: [u8; 32], message: Vec<u8>, flip in prop::option::of(0_usize..96 * 8)) {
        let signing = ed25519_dalek::SigningKey::from_bytes(&private);
        let mut signed = [signing.verifying_key().to_bytes().to_vec(), ed25519::sign(&message, &private).to_vec()].concat();
        if let Some(bit) = flip {
            signed[bit / 8] ^= 1 << (bit % 8);
        }
        let (key, signature) = signed.split_at(32);
        let dalek = ed25519_dalek::VerifyingKey::from_bytes(key.try_into().unwrap())
            .is_ok_and(|key| key.verify_strict(&message, &signature.try_into().unwrap()).is_ok());
        prop_assert_eq!(verify(&message, signature, key), dalek);
        prop_assert!(flip.is_some() || dalek);
    }
}
