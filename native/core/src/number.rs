//! Numbers as Erlang has them: integers of any size, and floats that are always finite.
//!
//! They compare as Erlang's `==` and `<` compare them (exactly, an integer against a float too, also above
//! 2^53) and add as its `+` adds them: integers exactly, an integer and a float as floats, and what no float
//! holds is [`Overflow`], in Erlang `badarith`.

use std::cmp::Ordering;

use num_bigint::{BigInt, BigUint, Sign};

/// A result that no float holds, or an integer beyond what the virtual machine takes: `badarith`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overflow;

/// An integer or a finite float.
///
/// `==` and `<` are Erlang's, so 1 and 1.0 are equal: the order is total because no number is NaN.
#[derive(Clone, Debug)]
pub enum Number {
    /// An integer that fits.
    Int(i64),
    /// Any other integer.
    Big(Box<Big>),
    /// A finite float.
    Float(f64),
}

/// An integer outside of `i64`.
#[derive(Clone, Debug)]
pub struct Big(BigInt);

/// The longest integer that the virtual machine has, in bytes of magnitude: 65,535 words, or 4,194,240 bits.
/// Its arithmetic and its reader of external terms go no further (tried on OTP 29).
pub const MAX_BYTES: usize = 524_280;

/// The first floats that are no `i64` any more.
const TWO_TO_63: f64 = 9_223_372_036_854_775_808.0;
/// Integers up to here are floats as well.
const EXACT: u64 = 1 << 53;

impl Number {
    /// The float, where it is finite.
    #[must_use]
    pub fn float(value: f64) -> Option<Self> {
        value.is_finite().then_some(Self::Float(value))
    }

    /// The integer of a sign and a magnitude in little-endian bytes, as external terms hold it.
    ///
    /// Leading zeros are fine. A magnitude longer than [`MAX_BYTES`] is `None`.
    #[must_use]
    pub fn from_le_bytes(negative: bool, magnitude: &[u8]) -> Option<Self> {
        if magnitude.len() > MAX_BYTES {
            return None;
        }
        let sign = if negative { Sign::Minus } else { Sign::Plus };
        let small = small_from_le_bytes(negative, magnitude);
        Some(small.unwrap_or_else(|| BigInt::from_bytes_le(sign, magnitude).into()))
    }

    /// The float that Erlang takes for this number where one is needed: the nearest, of two the even one.
    ///
    /// # Errors
    /// An integer that is too large.
    #[inline]
    pub fn to_f64(&self) -> Result<f64, Overflow> {
        match self {
            #[allow(clippy::cast_precision_loss)] // rounds to the nearest
            Self::Int(int) => Ok(*int as f64),
            Self::Big(big) => big_to_f64(&big.0),
            Self::Float(float) => Ok(*float),
        }
    }

    /// Erlang's `+`.
    ///
    /// # Errors
    /// See [`Overflow`].
    #[inline]
    pub fn add(&self, other: &Self) -> Result<Self, Overflow> {
        match (self, other) {
            (Self::Int(left), Self::Int(right)) => Ok(left.checked_add(*right).map_or_else(
                || (i128::from(*left) + i128::from(*right)).into(),
                Self::Int,
            )),
            (Self::Float(left), right) | (right, Self::Float(left)) => {
                finite(left + right.to_f64()?).map(Self::Float)
            }
            (Self::Int(int), Self::Big(big)) | (Self::Big(big), Self::Int(int)) => {
                bounded(&big.0 + int)
            }
            (Self::Big(left), Self::Big(right)) => bounded(&left.0 + &right.0),
        }
    }

    /// Erlang's `/` by a count: always a float.
    ///
    /// # Errors
    /// An integer too large for a float.
    pub fn divide(&self, count: u64) -> Result<f64, Overflow> {
        #[allow(clippy::cast_precision_loss)] // rounds to the nearest, as Erlang does
        finite(self.to_f64()? / count as f64)
    }

    /// Whether it is a float.
    #[must_use]
    pub const fn is_float(&self) -> bool {
        matches!(self, Self::Float(_))
    }
}

impl Big {
    /// How long its magnitude is, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        usize::try_from(self.0.bits().div_ceil(8)).unwrap_or(usize::MAX)
    }

    /// Whether it is below zero, and the magnitude in little-endian bytes without leading zeros.
    #[must_use]
    pub fn to_le_bytes(&self) -> (bool, Vec<u8>) {
        let (sign, magnitude) = self.0.to_bytes_le();
        (sign == Sign::Minus, magnitude)
    }
}

impl From<i64> for Number {
    fn from(int: i64) -> Self {
        Self::Int(int)
    }
}

impl From<u64> for Number {
    fn from(int: u64) -> Self {
        i128::from(int).into()
    }
}

impl From<i128> for Number {
    fn from(int: i128) -> Self {
        i64::try_from(int).map_or_else(|_| Self::Big(Box::new(Big(int.into()))), Self::Int)
    }
}

impl From<BigInt> for Number {
    fn from(int: BigInt) -> Self {
        i64::try_from(&int).map_or_else(|_| Self::Big(Box::new(Big(int))), Self::Int)
    }
}

impl PartialEq for Number {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Number {}

impl PartialOrd for Number {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Number {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Int(left), Self::Int(right)) => left.cmp(right),
            (Self::Float(left), Self::Float(right)) => compare_floats(*left, *right),
            (Self::Int(int), Self::Float(float)) => compare_int(*int, *float),
            (Self::Float(float), Self::Int(int)) => compare_int(*int, *float).reverse(),
            (Self::Big(left), Self::Big(right)) => left.0.cmp(&right.0),
            (Self::Big(big), Self::Float(float)) => compare_big(&big.0, *float),
            (Self::Float(float), Self::Big(big)) => compare_big(&big.0, *float).reverse(),
            (Self::Big(big), Self::Int(_)) => side(&big.0),
            (Self::Int(_), Self::Big(big)) => side(&big.0).reverse(),
        }
    }
}

/// The exact sum of any number of integers, one after the other.
///
/// A sum of `i64`s alone never leaves `i128`, which costs one instruction more than `i64`.
#[derive(Clone, Debug)]
pub enum IntSum {
    /// As long as it fits, and from then on no more.
    Small(i128),
    /// It did not.
    Large(BigInt),
}

impl Default for IntSum {
    fn default() -> Self {
        Self::Small(0)
    }
}

impl IntSum {
    /// Adds an integer that fits.
    ///
    /// # Errors
    /// See [`Overflow`]; a sum that has failed is not to be used any more.
    #[inline]
    pub fn add(&mut self, int: i64) -> Result<(), Overflow> {
        match self {
            Self::Small(sum) => match sum.checked_add(i128::from(int)) {
                Some(next) => {
                    *sum = next;
                    Ok(())
                }
                None => self.add_large(&int.into()),
            },
            Self::Large(_) => self.add_large(&int.into()),
        }
    }

    /// Adds one that does not.
    ///
    /// # Errors
    /// See [`IntSum::add`].
    pub fn add_big(&mut self, big: &Big) -> Result<(), Overflow> {
        let small = match (&self, i128::try_from(&big.0)) {
            (Self::Small(sum), Ok(int)) => sum.checked_add(int),
            _ => None,
        };
        match small {
            Some(next) => {
                *self = Self::Small(next);
                Ok(())
            }
            None => self.add_large(&big.0),
        }
    }

    /// Adds another sum.
    ///
    /// # Errors
    /// See [`IntSum::add`].
    pub fn merge(&mut self, other: &Self) -> Result<(), Overflow> {
        match other {
            Self::Small(int) => match i64::try_from(*int) {
                Ok(int) => self.add(int),
                Err(_) => self.add_big(&Big((*int).into())),
            },
            Self::Large(int) => self.add_large(int),
        }
    }

    /// The sum so far.
    #[must_use]
    pub fn total(&self) -> Number {
        match self {
            Self::Small(sum) => (*sum).into(),
            Self::Large(sum) => sum.clone().into(),
        }
    }

    #[cold]
    fn add_large(&mut self, int: &BigInt) -> Result<(), Overflow> {
        let mut sum = match std::mem::take(self) {
            Self::Small(small) => small.into(),
            Self::Large(large) => large,
        };
        sum += int;
        let fits = within_limit(&sum);
        *self = Self::Large(sum);
        if fits { Ok(()) } else { Err(Overflow) }
    }
}

#[inline]
fn finite(value: f64) -> Result<f64, Overflow> {
    if value.is_finite() {
        Ok(value)
    } else {
        Err(Overflow)
    }
}

fn bounded(int: BigInt) -> Result<Number, Overflow> {
    if within_limit(&int) {
        Ok(int.into())
    } else {
        Err(Overflow)
    }
}

fn within_limit(int: &BigInt) -> bool {
    int.bits() <= 8 * MAX_BYTES as u64
}

/// What fits eight bytes is read without a vector.
fn small_from_le_bytes(negative: bool, magnitude: &[u8]) -> Option<Number> {
    let mut bytes = [0; 8];
    bytes.get_mut(..magnitude.len())?.copy_from_slice(magnitude);
    let value = i128::from(u64::from_le_bytes(bytes));
    Some(if negative { -value } else { value }.into())
}

/// Both are finite.
#[inline]
fn compare_floats(left: f64, right: f64) -> Ordering {
    left.partial_cmp(&right).unwrap_or(Ordering::Equal)
}

#[inline]
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)] // exact where they stand
fn compare_int(int: i64, float: f64) -> Ordering {
    if int.unsigned_abs() <= EXACT {
        return compare_floats(int as f64, float);
    }
    if float >= TWO_TO_63 {
        return Ordering::Less;
    }
    if float < -TWO_TO_63 {
        return Ordering::Greater;
    }
    // The whole part is an i64, and the rest decides only where the whole parts are equal.
    int.cmp(&(float.trunc() as i64))
        .then_with(|| compare_floats(0.0, float.fract()))
}

fn compare_big(big: &BigInt, float: f64) -> Ordering {
    if (-TWO_TO_63..TWO_TO_63).contains(&float) {
        return side(big);
    }
    big.cmp(&whole(float))
}

/// Where an integer outside of `i64` lies to those inside.
fn side(big: &BigInt) -> Ordering {
    if big.sign() == Sign::Minus {
        Ordering::Less
    } else {
        Ordering::Greater
    }
}

/// The integer that a float from 2^53 on is (IEEE 754: 52 bits behind the leading one, bias 1023).
fn whole(float: f64) -> BigInt {
    let bits = float.to_bits();
    let mantissa = (bits & ((1 << 52) - 1)) | (1 << 52);
    let exponent = (bits >> 52) & 0x7FF;
    let magnitude = BigUint::from(mantissa) << exponent.saturating_sub(1023 + 52);
    let sign = if float.is_sign_negative() {
        Sign::Minus
    } else {
        Sign::Plus
    };
    BigInt::from_biguint(sign, magnitude)
}

/// The highest 64 bits are rounded by the processor; one bit stands for all below them.
#[allow(clippy::cast_precision_loss)]
fn big_to_f64(big: &BigInt) -> Result<f64, Overflow> {
    let magnitude = big.magnitude();
    let below = magnitude.bits().saturating_sub(64);
    if below > 1024 - 64 {
        return Err(Overflow);
    }
    let top = (magnitude >> below).iter_u64_digits().next().unwrap_or(0);
    let sticky = u64::from(magnitude.trailing_zeros().unwrap_or(0) < below);
    let scale = f64::from_bits((1023 + below) << 52);
    let float = finite((top | sticky) as f64 * scale)?;
    Ok(if big.sign() == Sign::Minus {
        -float
    } else {
        float
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn big(text: &str) -> Number {
        text.parse::<BigInt>().map_or(Number::Int(0), Number::from)
    }

    #[test]
    fn an_integer_is_compared_with_a_float_exactly() {
        let two_to_53 = Number::Int(1 << 53);
        let above = Number::Int((1 << 53) + 1);
        let float = Number::Float(9_007_199_254_740_992.0);
        assert_eq!(two_to_53, float);
        assert!(above > float);
        assert!(Number::Int(i64::MAX) < Number::Float(TWO_TO_63));
        assert_eq!(Number::Int(i64::MIN), Number::Float(-TWO_TO_63));
        assert_eq!(big("9223372036854775808"), Number::Float(TWO_TO_63));
        assert!(big("9223372036854775809") > Number::Float(TWO_TO_63));
        assert!(big("-9223372036854775809") < Number::Float(-TWO_TO_63));
        assert!(big("-9223372036854775809") > Number::Float(-1.0e300));
        assert!(Number::Int(-1) < Number::Float(-0.5));
        assert_eq!(Number::Int(0), Number::Float(-0.0));
    }

    #[test]
    fn integers_leave_i64_and_come_back() -> Result<(), Overflow> {
        let large = Number::Int(i64::MAX).add(&Number::Int(1))?;
        assert_eq!(large, big("9223372036854775808"));
        let small = large.add(&Number::Int(-1))?;
        assert!(matches!(small, Number::Int(i64::MAX)));
        let zero = large.add(&Number::Int(i64::MIN))?;
        assert!(matches!(zero, Number::Int(0)));
        Ok(())
    }

    #[test]
    fn zero_and_minus_zero_make_zero() -> Result<(), Overflow> {
        let sum = Number::Int(0).add(&Number::Float(-0.0))?;
        assert!(matches!(sum, Number::Float(float) if float.to_bits() == 0));
        Ok(())
    }

    #[test]
    fn what_no_float_holds_is_an_overflow() {
        let most = Number::Float(f64::MAX);
        assert_eq!(most.add(&most), Err(Overflow));
        let too_large: Number = (BigInt::from(1) << 1024_u32).into();
        assert_eq!(too_large.to_f64(), Err(Overflow));
        assert_eq!(too_large.add(&Number::Float(1.0)), Err(Overflow));
        // Half way between the largest float and 2^1024 is rounded up, what is below it down.
        let half_way = (BigInt::from(1) << 1024_u32) - (BigInt::from(1) << 970_u32);
        assert_eq!(Number::from(half_way.clone()).to_f64(), Err(Overflow));
        assert_eq!(Number::from(half_way - 1).to_f64(), Ok(f64::MAX));
    }

    #[test]
    fn an_integer_longer_than_the_limit_is_refused() {
        let longest = vec![0xFF; MAX_BYTES];
        let number = Number::from_le_bytes(false, &longest);
        assert!(number.is_some());
        assert!(Number::from_le_bytes(false, &vec![0; MAX_BYTES + 1]).is_none());
        let next = number.map(|number| number.add(&Number::Int(1)));
        assert_eq!(next, Some(Err(Overflow)));
    }
}
