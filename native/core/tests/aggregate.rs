//! Numbers and accumulators against naive versions of themselves.

use esdb_core::aggregate::{Accumulator, Groups, Kind};
use esdb_core::number::{Number, Overflow};
use num_bigint::BigInt;
use proptest::prelude::*;
use std::cmp::Ordering;

/// A number as a fraction of integers: numerator by 2^1100, exact for every integer and every float.
fn exact(number: &Number) -> BigInt {
    match number {
        Number::Int(int) => BigInt::from(*int) << 1100,
        Number::Big(big) => {
            let (negative, magnitude) = big.to_le_bytes();
            let int: BigInt = BigInt::from_bytes_le(num_bigint::Sign::Plus, &magnitude) << 1100_u32;
            if negative { -int } else { int }
        }
        Number::Float(float) => {
            let bits = float.abs().to_bits();
            let exponent = bits >> 52;
            let fraction = bits & ((1 << 52) - 1);
            // Subnormal numbers have no leading one, and the exponent of the least normal one.
            let (mantissa, shift) = if exponent == 0 {
                (fraction, 1)
            } else {
                (fraction | (1 << 52), exponent)
            };
            let scaled = BigInt::from(mantissa) << (shift + 1100 - 1075);
            if *float < 0.0 { -scaled } else { scaled }
        }
    }
}

/// What tells numbers apart that are equal.
fn identity(number: &Number) -> (BigInt, bool, bool) {
    let negative_zero = matches!(number, Number::Float(float) if float.is_sign_negative());
    (exact(number), number.is_float(), negative_zero)
}

fn near(power: u32, distance: i64, negative: bool) -> Number {
    let int = (BigInt::from(1) << power) + distance;
    (if negative { -int } else { int }).into()
}

fn int() -> impl Strategy<Value = Number> {
    prop_oneof![
        (-3_i64..3).prop_map(Number::Int),
        any::<i64>().prop_map(Number::Int),
        any::<i128>().prop_map(Number::from),
        (
            prop_oneof![52_u32..66, 126_u32..129, 1020_u32..1030],
            -2_i64..=2,
            any::<bool>()
        )
            .prop_map(|(power, distance, negative)| near(power, distance, negative)),
        (53_u32..1100, any::<i64>(), any::<bool>())
            .prop_map(|(power, distance, negative)| near(power, distance, negative)),
    ]
}

fn float() -> impl Strategy<Value = Number> {
    prop_oneof![
        (-3_i8..3).prop_map(|int| f64::from(int) / 2.0),
        Just(-0.0),
        (50_i32..66, -2_i32..=2, any::<bool>()).prop_map(|(power, steps, negative)| {
            let float = 2.0_f64.powi(power);
            let moved = f64::from_bits(float.to_bits().wrapping_add_signed(steps.into()));
            if negative { -moved } else { moved }
        }),
        any::<f64>().prop_filter("finite", |float| float.is_finite()),
    ]
    .prop_filter_map("finite", Number::float)
}

fn number() -> impl Strategy<Value = Number> {
    prop_oneof![2 => int(), 1 => float()]
}

/// Of the floats beside an integer, the nearer one; of two the one whose last bit is 0.
fn is_nearest(int: &BigInt, float: f64) -> bool {
    let distance = |float: f64| {
        let number = Number::float(float)?;
        let away: BigInt = exact(&number) - (int << 1100_u32);
        Some(away.magnitude().clone())
    };
    let Some(here) = distance(float) else {
        return false;
    };
    let even = float.to_bits() & 1 == 0;
    [-1, 1].into_iter().all(|step| {
        let beside = f64::from_bits(float.to_bits().wrapping_add_signed(step));
        distance(beside).is_none_or(|there| here < there || (here == there && even))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn comparison_is_that_of_the_exact_values(left in number(), right in number()) {
        prop_assert_eq!(left.cmp(&right), exact(&left).cmp(&exact(&right)));
        prop_assert_eq!(left == right, left.cmp(&right) == Ordering::Equal);
    }

    #[test]
    fn integers_add_exactly(left in int(), right in int()) {
        let sum = left.add(&right).map(|sum| exact(&sum));
        prop_assert_eq!(sum, Ok(exact(&left) + exact(&right)));
    }

    #[test]
    fn an_integer_becomes_the_nearest_float(number in int()) {
        let int = exact(&number) >> 1100;
        match number.to_f64() {
            Ok(float) => prop_assert!(int == BigInt::ZERO || is_nearest(&int, float)),
            Err(Overflow) => prop_assert!(int.bits() >= 1024),
        }
    }

    #[test]
    fn a_mixed_sum_is_that_of_floats(int in int(), float in float()) {
        let sum = int.to_f64().and_then(|converted| {
            let sum = converted + float.to_f64()?;
            Number::float(sum).ok_or(Overflow)
        });
        let expected = sum.map(|sum| identity(&sum));
        prop_assert_eq!(int.add(&float).map(|sum| identity(&sum)), expected.clone());
        prop_assert_eq!(float.add(&int).map(|sum| identity(&sum)), expected);
    }

    #[test]
    fn bytes_of_integers_come_back(number in int()) {
        if let Number::Big(big) = &number {
            let (negative, mut magnitude) = big.to_le_bytes();
            prop_assert_eq!(big.bytes(), magnitude.len());
            magnitude.extend([0, 0]);
            prop_assert_eq!(Number::from_le_bytes(negative, &magnitude), Some(number));
        } else if let Number::Int(int) = number {
            let read = Number::from_le_bytes(int < 0, &int.unsigned_abs().to_le_bytes());
            prop_assert!(matches!(read, Some(Number::Int(same)) if same == int));
        }
    }

    #[test]
    fn a_sum_is_integers_first_and_then_floats(numbers in proptest::collection::vec(number(), 0..20)) {
        let mut sum = Accumulator::new(Kind::Sum);
        let added = numbers.iter().try_for_each(|number| sum.add(Some(number)));
        let found = added.and_then(|()| sum.result());
        let (floats, ints): (Vec<_>, Vec<_>) = numbers.iter().partition(|number| number.is_float());
        let add = |sum: Number, number: &&Number| sum.add(number);
        let expected = ints.iter().try_fold(Number::Int(0), add).and_then(|ints| {
            if floats.is_empty() {
                return Ok(ints);
            }
            let floats = floats.iter().try_fold(Number::Float(0.0), add)?;
            ints.add(&floats)
        });
        let found = found.map(|number| number.as_ref().map(identity));
        prop_assert_eq!(found, expected.map(|number| Some(identity(&number))));
    }

    #[test]
    fn extremes_and_counts_of_parts_are_those_of_the_whole(
        numbers in proptest::collection::vec((0_u8..4, number()), 0..30),
        cut in 0_usize..30,
    ) {
        let kinds = vec![Kind::Count, Kind::Min, Kind::Max];
        let grouped = |part: &[(u8, Number)]| {
            let mut groups = Groups::<u8>::new(kinds.clone());
            for (key, number) in part {
                let place = groups.place(*key);
                for answer in groups.at(place) {
                    answer.add(Some(number))?;
                }
            }
            Ok::<_, Overflow>(groups)
        };
        let (before, after) = numbers.split_at(cut.min(numbers.len()));
        let mut parts = grouped(before).map_err(|_| TestCaseError::fail("overflow"))?;
        let later = grouped(after).map_err(|_| TestCaseError::fail("overflow"))?;
        parts.merge(&later).map_err(|_| TestCaseError::fail("overflow"))?;
        let whole = grouped(&numbers).map_err(|_| TestCaseError::fail("overflow"))?;
        let shown = |groups: &Groups<u8>| {
            let mut shown = Vec::new();
            for (key, answers) in groups.iter() {
                for answer in answers {
                    let number = answer.result().ok().flatten();
                    shown.push((*key, number.as_ref().map(identity)));
                }
            }
            shown
        };
        prop_assert_eq!(shown(&parts), shown(&whole));
        prop_assert_eq!(parts.is_empty(), numbers.is_empty());
    }

    #[test]
    fn integer_sums_of_parts_are_those_of_the_whole(
        numbers in proptest::collection::vec(int(), 0..30),
        cut in 0_usize..30,
    ) {
        let answer = |part: &[Number]| {
            let mut sum = Accumulator::new(Kind::Sum);
            part.iter().try_for_each(|number| sum.add(Some(number)))?;
            Ok::<_, Overflow>(sum)
        };
        let (before, after) = numbers.split_at(cut.min(numbers.len()));
        let whole = answer(&numbers).and_then(|sum| sum.result());
        let parts = answer(before).and_then(|mut sum| {
            sum.merge(&answer(after)?)?;
            sum.result()
        });
        prop_assert_eq!(parts, whole);
    }
}
