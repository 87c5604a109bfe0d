//! Base58 with the Bitcoin alphabet.
//!
//! A change of base between two big numbers: quadratic, hence [`MAX_BYTES`]. Zero bytes in front, which a
//! number does not keep, are ones in front of the text, one for one.
//!
//! The numbers are kept in limbs, least significant first: of 32 bits where they are bytes, of five digits
//! (58^5 is below 2^30) where they are text, so that a step fits into 64 bits and divides by a constant.

/// The longest data that [`encode`] takes.
pub const MAX_BYTES: usize = 8192;

/// The longest text that [`decode`] takes: the longest that [`encode`] makes.
pub const MAX_TEXT: usize = 11_188;

const ALPHABET: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
const ZERO: u8 = b'1';
const DIGITS: usize = 5;
const LIMB: u64 = 58_u64.pow(DIGITS as u32);

/// The value of each character; [`NONE`] for what is none.
const VALUES: [u8; 256] = values();
const NONE: u8 = 0xff;

#[allow(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const fn values() -> [u8; 256] {
    let mut values = [NONE; 256];
    let mut value = 0;
    while value < ALPHABET.len() {
        values[ALPHABET[value] as usize] = value as u8;
        value += 1;
    }
    values
}

/// Why there is no Base58 of something, or nothing behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base58Error {
    /// Longer than [`MAX_BYTES`] or [`MAX_TEXT`].
    TooLarge,
    /// The first byte that is not in the alphabet.
    InvalidChar(u8),
}

/// The text for `data`.
///
/// # Errors
/// [`Base58Error::TooLarge`].
pub fn encode(data: &[u8]) -> Result<Vec<u8>, Base58Error> {
    if data.len() > MAX_BYTES {
        return Err(Base58Error::TooLarge);
    }
    let zeros = leading(data, 0);
    let digits = data.get(zeros..).unwrap_or_default();
    // Five digits take 29.3 bits: 32 bits of data fill 1.1 limbs.
    let mut limbs = Vec::with_capacity(digits.len() * 3 / 10 + 2);
    let (head, words) = groups::<4>(digits);
    shift_in(&mut limbs, number(head, 256), 0);
    for word in words {
        shift_in(&mut limbs, number(word, 256), 32);
    }
    Ok(text(zeros, &limbs))
}

/// limbs = limbs * 2^bits + value.
fn shift_in(limbs: &mut Vec<u32>, value: u64, bits: u32) {
    let mut carry = value;
    for limb in limbs.iter_mut() {
        let next = (u64::from(*limb) << bits) + carry;
        *limb = (next % LIMB) as u32;
        carry = next / LIMB;
    }
    while carry > 0 {
        limbs.push((carry % LIMB) as u32);
        carry /= LIMB;
    }
}

fn text(zeros: usize, limbs: &[u32]) -> Vec<u8> {
    let mut text = vec![ZERO; zeros];
    text.reserve(limbs.len() * DIGITS);
    for limb in limbs.iter().rev() {
        let mut digits = [0_u8; DIGITS];
        let mut rest = *limb;
        for digit in digits.iter_mut().rev() {
            *digit = ALPHABET.get((rest % 58) as usize).copied().unwrap_or(ZERO);
            rest /= 58;
        }
        // The first limb is not padded.
        let padding = if text.len() == zeros {
            leading(&digits, ZERO)
        } else {
            0
        };
        text.extend_from_slice(digits.get(padding..).unwrap_or_default());
    }
    text
}

/// The data behind `text`.
///
/// # Errors
/// [`Base58Error::TooLarge`] for what is too long, whatever it holds; [`Base58Error::InvalidChar`].
pub fn decode(text: &[u8]) -> Result<Vec<u8>, Base58Error> {
    if text.len() > MAX_TEXT {
        return Err(Base58Error::TooLarge);
    }
    let mut values = Vec::with_capacity(text.len());
    for character in text {
        match VALUES.get(usize::from(*character)) {
            Some(value) if *value != NONE => values.push(*value),
            _ => return Err(Base58Error::InvalidChar(*character)),
        }
    }
    let zeros = leading(&values, 0);
    let digits = values.get(zeros..).unwrap_or_default();
    let mut limbs = Vec::with_capacity(digits.len() * 3 / 16 + 2);
    let (head, groups) = groups::<DIGITS>(digits);
    multiply_in(&mut limbs, number(head, 58));
    for group in groups {
        multiply_in(&mut limbs, number(group, 58));
    }
    Ok(bytes(zeros, &limbs))
}

/// limbs = limbs * 58^5 + value.
fn multiply_in(limbs: &mut Vec<u32>, value: u64) {
    let mut carry = value;
    for limb in limbs.iter_mut() {
        let next = u64::from(*limb) * LIMB + carry;
        *limb = next as u32;
        carry = next >> 32;
    }
    if carry > 0 {
        limbs.push(carry as u32);
    }
}

fn bytes(zeros: usize, limbs: &[u32]) -> Vec<u8> {
    let mut bytes = vec![0; zeros];
    bytes.reserve(limbs.len() * 4);
    for limb in limbs.iter().rev() {
        let word = limb.to_be_bytes();
        let padding = if bytes.len() == zeros {
            leading(&word, 0)
        } else {
            0
        };
        bytes.extend_from_slice(word.get(padding..).unwrap_or_default());
    }
    bytes
}

/// Groups of `N` that end where `digits` end, and what is left in front of them.
fn groups<const N: usize>(digits: &[u8]) -> (&[u8], impl Iterator<Item = &[u8; N]>) {
    let (head, rest) = digits
        .split_at_checked(digits.len() % N)
        .unwrap_or_default();
    (
        head,
        rest.chunks_exact(N)
            .filter_map(|group| group.try_into().ok()),
    )
}

fn number(digits: &[u8], base: u64) -> u64 {
    digits
        .iter()
        .fold(0, |number, digit| number * base + u64::from(*digit))
}

fn leading(data: &[u8], byte: u8) -> usize {
    data.iter().take_while(|other| **other == byte).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn limits() {
        let longest = vec![0xff; MAX_BYTES];
        let text = encode(&longest).unwrap_or_default();
        assert_eq!(text.len(), MAX_TEXT);
        assert_eq!(decode(&text), Ok(longest));
        assert_eq!(encode(&[1; MAX_BYTES + 1]), Err(Base58Error::TooLarge));
        assert_eq!(decode(&[b'0'; MAX_TEXT + 1]), Err(Base58Error::TooLarge));
    }

    #[test]
    fn the_first_invalid_character_is_named() {
        for character in b"0OIl +/\n\x00\xff" {
            let text = [b"1z", &[*character][..], b"0"].concat();
            assert_eq!(decode(&text), Err(Base58Error::InvalidChar(*character)));
        }
    }

    proptest! {
        #[test]
        fn the_crate_agrees(zeros in 0_usize..6, mut data in prop::collection::vec(any::<u8>(), 0..200)) {
            data.splice(0..0, vec![0; zeros]);
            let text = encode(&data);
            prop_assert_eq!(text.clone(), Ok(bs58::encode(&data).into_vec()));
            prop_assert_eq!(decode(&text.unwrap_or_default()), Ok(data));
        }

        #[test]
        fn the_crate_agrees_on_text(text in "[1-9A-Za-z]{0,60}") {
            match bs58::decode(&text).into_vec() {
                Ok(data) => prop_assert_eq!(decode(text.as_bytes()), Ok(data)),
                Err(_) => prop_assert!(matches!(decode(text.as_bytes()), Err(Base58Error::InvalidChar(_)))),
            }
        }
    }
}
