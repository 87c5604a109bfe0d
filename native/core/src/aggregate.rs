//! Sums, counts, extremes and averages, and the fold of tagged values, generic over what a key and a value
//! that is no number are: terms of a running node, or bytes of a packed segment.
//!
//! Integers are summed exactly and apart; floats from left to right, parts one after the other; together
//! they come at the end. So the result does not depend on which implementation counts.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};

use crate::number::{IntSum, Number, Overflow};

/// What is asked of the numbers of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// How many events, whatever they hold.
    Count,
    /// The sum of the numbers, 0 without any.
    Sum,
    /// The least number, the first of equals.
    Min,
    /// The greatest number, the first of equals.
    Max,
    /// The sum by the count of numbers, a float.
    Avg,
}

/// The answer to a [`Kind`] so far.
#[derive(Clone, Debug)]
pub enum Accumulator {
    /// Events.
    Count(u64),
    /// Numbers.
    Sum(Sum),
    /// The least.
    Min(Option<Number>),
    /// The greatest.
    Max(Option<Number>),
    /// Numbers, and how many.
    Avg(Sum, u64),
}

impl Accumulator {
    /// The answer to no event.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        match kind {
            Kind::Count => Self::Count(0),
            Kind::Sum => Self::Sum(Sum::default()),
            Kind::Min => Self::Min(None),
            Kind::Max => Self::Max(None),
            Kind::Avg => Self::Avg(Sum::default(), 0),
        }
    }

    /// One event more, and the number of its field, if that is one.
    ///
    /// # Errors
    /// See [`Sum::add`].
    #[inline]
    pub fn add(&mut self, number: Option<&Number>) -> Result<(), Overflow> {
        match (self, number) {
            (Self::Count(count), _) => *count += 1,
            (_, None) => {}
            (Self::Sum(sum), Some(number)) => sum.add(number)?,
            (Self::Min(least), Some(number)) => keep(least, number, |new, old| new < old),
            (Self::Max(greatest), Some(number)) => keep(greatest, number, |new, old| new > old),
            (Self::Avg(sum, count), Some(number)) => {
                sum.add(number)?;
                *count += 1;
            }
        }
        Ok(())
    }

    /// Goes on with the answer to the events that follow. Both must be of one kind; of another, nothing
    /// happens.
    ///
    /// # Errors
    /// See [`Sum::add`].
    pub fn merge(&mut self, later: &Self) -> Result<(), Overflow> {
        match (self, later) {
            (Self::Count(count), Self::Count(more)) => *count += more,
            (Self::Sum(sum), Self::Sum(more)) => sum.merge(more)?,
            (Self::Min(_), Self::Min(None)) | (Self::Max(_), Self::Max(None)) => {}
            (this @ Self::Min(_), Self::Min(number)) | (this @ Self::Max(_), Self::Max(number)) => {
                this.add(number.as_ref())?;
            }
            (Self::Avg(sum, count), Self::Avg(more, numbers)) => {
                sum.merge(more)?;
                *count += numbers;
            }
            _ => {}
        }
        Ok(())
    }

    /// The answer; `None` is Erlang's `undefined`: there is no least number of none.
    ///
    /// # Errors
    /// Integers and floats that do not go together, an average of integers too large for a float.
    pub fn result(&self) -> Result<Option<Number>, Overflow> {
        match self {
            Self::Count(count) => Ok(Some((*count).into())),
            Self::Sum(sum) => sum.total().map(Some),
            Self::Min(number) | Self::Max(number) => Ok(number.clone()),
            Self::Avg(_, 0) => Ok(None),
            Self::Avg(sum, count) => {
                let average = sum.total()?.divide(*count)?;
                Ok(Some(Number::Float(average)))
            }
        }
    }
}

#[inline]
fn keep(kept: &mut Option<Number>, new: &Number, better: impl FnOnce(&Number, &Number) -> bool) {
    if kept.as_ref().is_none_or(|old| better(new, old)) {
        *kept = Some(new.clone());
    }
}

/// A sum of numbers: integers apart from floats.
#[derive(Clone, Debug, Default)]
pub struct Sum {
    ints: IntSum,
    /// Nothing as long as no float came: then the sum is an integer.
    floats: Option<f64>,
}

impl Sum {
    /// Adds a number.
    ///
    /// # Errors
    /// A sum of floats that is none; the sum is not to be used any more.
    #[inline]
    pub fn add(&mut self, number: &Number) -> Result<(), Overflow> {
        match number {
            Number::Int(int) => self.ints.add(*int),
            Number::Big(big) => self.ints.add_big(big),
            Number::Float(float) => self.add_float(*float),
        }
    }

    /// Adds the sum of the part that follows.
    ///
    /// # Errors
    /// See [`Sum::add`].
    pub fn merge(&mut self, later: &Self) -> Result<(), Overflow> {
        self.ints.merge(&later.ints)?;
        later.floats.map_or(Ok(()), |float| self.add_float(float))
    }

    /// Integers and floats together.
    ///
    /// # Errors
    /// Integers too large for a float, where there was one, or a sum that is.
    pub fn total(&self) -> Result<Number, Overflow> {
        let ints = self.ints.total();
        match self.floats {
            None => Ok(ints),
            Some(floats) => ints.add(&Number::Float(floats)),
        }
    }

    #[inline]
    fn add_float(&mut self, float: f64) -> Result<(), Overflow> {
        let sum = self.floats.unwrap_or(0.0) + float;
        self.floats = Some(sum);
        if sum.is_finite() {
            Ok(())
        } else {
            Err(Overflow)
        }
    }
}

/// Groups of events, each with the answers to the same questions, in the order in which they came up.
///
/// Which keys are the same is what their `Eq` says.
#[derive(Clone, Debug)]
pub struct Groups<K, S = std::hash::RandomState> {
    kinds: Vec<Kind>,
    places: HashMap<K, usize, S>,
    keys: Vec<K>,
    /// As many for each key as there are kinds.
    accumulators: Vec<Accumulator>,
}

impl<K: Eq + Hash + Clone, S: BuildHasher + Default> Groups<K, S> {
    /// No groups yet.
    #[must_use]
    pub fn new(kinds: Vec<Kind>) -> Self {
        Self {
            kinds,
            places: HashMap::default(),
            keys: Vec::new(),
            accumulators: Vec::new(),
        }
    }

    /// The place of a group, which is made where there is none: 0 for the first that came up.
    ///
    /// Who sees one key many times in a row saves the search by keeping its place.
    #[inline]
    pub fn place(&mut self, key: K) -> usize {
        if let Some(place) = self.places.get(&key) {
            return *place;
        }
        let place = self.keys.len();
        self.keys.push(key.clone());
        self.places.insert(key, place);
        let none = self.kinds.iter().map(|kind| Accumulator::new(*kind));
        self.accumulators.extend(none);
        place
    }

    /// The answers of the group at a place, one for each kind; none where there is no such group.
    #[inline]
    pub fn at(&mut self, place: usize) -> &mut [Accumulator] {
        let width = self.kinds.len();
        let start = place.saturating_mul(width);
        self.accumulators
            .get_mut(start..start.saturating_add(width))
            .unwrap_or_default()
    }

    /// Goes on with the groups of the events that follow, asked the same.
    ///
    /// # Errors
    /// See [`Accumulator::merge`].
    pub fn merge(&mut self, later: &Self) -> Result<(), Overflow> {
        for (key, more) in later.iter() {
            let place = self.place(key.clone());
            for (answer, more) in self.at(place).iter_mut().zip(more) {
                answer.merge(more)?;
            }
        }
        Ok(())
    }

    /// Each group and its answers, in the order in which they came up.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &[Accumulator])> {
        let width = self.kinds.len();
        self.keys.iter().enumerate().map(move |(place, key)| {
            let start = place * width;
            let answers = self.accumulators.get(start..start + width);
            (key, answers.unwrap_or_default())
        })
    }

    /// How many groups there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

/// What a field of an event says about the field of the state, or what the state holds.
#[derive(Clone, Debug)]
pub enum Tagged<V> {
    /// `{sum, N}`: N is added, and the result stays tagged.
    Sum(Number),
    /// Any other value, `{overwrite, _}` included: it takes the place of what was there.
    Value(V),
}

impl<V> Tagged<V> {
    /// Applies the next field. `counts` says what a value counts for a sum that is added to it: a number
    /// itself and the number of an `{overwrite, Number}`, any other nothing. It is asked only then.
    ///
    /// # Errors
    /// A sum that overflows, or what `counts` found.
    #[inline]
    pub fn apply<E: From<Overflow>>(
        &mut self,
        next: Self,
        counts: impl FnOnce(&V) -> Result<Option<Number>, E>,
    ) -> Result<(), E> {
        *self = self.followed(next, counts)?;
        Ok(())
    }

    /// What [`apply`](Self::apply) makes of it.
    #[inline(always)]
    fn followed<E: From<Overflow>>(
        &self,
        next: Self,
        counts: impl FnOnce(&V) -> Result<Option<Number>, E>,
    ) -> Result<Self, E> {
        Ok(match (self, next) {
            (Self::Sum(sum), Self::Sum(more)) => Self::Sum(sum.add(&more)?),
            (Self::Value(value), Self::Sum(more)) => {
                let start = counts(value)?.unwrap_or(Number::Int(0));
                Self::Sum(start.add(&more)?)
            }
            (_, value @ Self::Value(_)) => value,
        })
    }

    /// The field of a state that did not have it: 0 and the sum, which leaves no float -0.0.
    #[must_use]
    pub fn first(next: Self) -> Self {
        match next {
            Self::Sum(Number::Float(float)) => Self::Sum(Number::Float(0.0 + float)),
            other => other,
        }
    }
}

/// A state of tagged fields, in the order in which they came up.
#[derive(Clone, Debug)]
pub struct Fold<K, V, S = std::hash::RandomState> {
    places: HashMap<K, usize, S>,
    fields: Vec<(K, Tagged<V>)>,
}

impl<K: Eq + Hash + Clone, V, S: BuildHasher + Default> Default for Fold<K, V, S> {
    fn default() -> Self {
        Self {
            places: HashMap::default(),
            fields: Vec::new(),
        }
    }
}

impl<K: Eq + Hash + Clone, V, S: BuildHasher + Default> Fold<K, V, S> {
    /// Sets a field of the state to begin with: as it is, without any rule.
    pub fn set(&mut self, key: K, value: Tagged<V>) {
        match self.field(&key) {
            Some(field) => *field = value,
            None => self.push(key, value),
        }
    }

    /// Applies a field of the next event; see [`Tagged::apply`].
    ///
    /// # Errors
    /// See [`Tagged::apply`].
    #[inline]
    pub fn apply<E: From<Overflow>>(
        &mut self,
        key: K,
        next: Tagged<V>,
        counts: impl FnOnce(&V) -> Result<Option<Number>, E>,
    ) -> Result<(), E> {
        if let Some(field) = self.field(&key) {
            return field.apply(next, counts);
        }
        self.push(key, Tagged::first(next));
        Ok(())
    }

    /// As [`apply`](Self::apply), of a field that is likely to have come up at a place: the search is saved
    /// where it did. One that did not come up here goes on from what it was in the state before this one. The place
    /// that it has is returned.
    ///
    /// # Errors
    /// See [`Tagged::apply`].
    #[inline]
    pub fn apply_near<E: From<Overflow>>(
        &mut self,
        before: &Self,
        guess: usize,
        key: K,
        next: Tagged<V>,
        counts: impl FnOnce(&V) -> Result<Option<Number>, E>,
    ) -> Result<usize, E> {
        let is_there = self.fields.get(guess).is_some_and(|(at, _)| *at == key);
        let place = if is_there {
            Some(guess)
        } else {
            self.places.get(&key).copied()
        };
        let found = place.and_then(|place| Some((place, self.fields.get_mut(place)?)));
        if let Some((place, (_, field))) = found {
            field.apply(next, counts)?;
            return Ok(place);
        }
        let field = match before.get(&key) {
            Some(field) => field.followed(next, counts)?,
            None => Tagged::first(next),
        };
        self.push(key, field);
        Ok(self.fields.len() - 1)
    }

    /// The fields, in the order in which they came up.
    #[must_use]
    pub fn fields(&self) -> &[(K, Tagged<V>)] {
        &self.fields
    }

    /// The fields themselves, in this order.
    #[must_use]
    pub fn into_fields(self) -> Vec<(K, Tagged<V>)> {
        self.fields
    }

    /// Where a field stands among the others.
    #[must_use]
    pub fn place(&self, key: &K) -> Option<usize> {
        self.places.get(key).copied()
    }

    /// Gives the field at a place another value.
    pub fn set_at(&mut self, place: usize, value: Tagged<V>) {
        if let Some((_, field)) = self.fields.get_mut(place) {
            *field = value;
        }
    }

    fn get(&self, key: &K) -> Option<&Tagged<V>> {
        self.fields.get(self.place(key)?).map(|(_, field)| field)
    }

    fn field(&mut self, key: &K) -> Option<&mut Tagged<V>> {
        let place = self.place(key)?;
        self.fields.get_mut(place).map(|(_, field)| field)
    }

    fn push(&mut self, key: K, value: Tagged<V>) {
        self.places.insert(key.clone(), self.fields.len());
        self.fields.push((key, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(kind: Kind, numbers: &[Number]) -> Result<Option<Number>, Overflow> {
        let mut accumulator = Accumulator::new(kind);
        for number in numbers {
            accumulator.add(Some(number))?;
        }
        accumulator.result()
    }

    #[test]
    fn nothing_has_a_sum_and_a_count_but_no_extreme_and_no_average() {
        for (kind, expected) in [
            (Kind::Count, Some(Number::Int(0))),
            (Kind::Sum, Some(Number::Int(0))),
            (Kind::Min, None),
            (Kind::Max, None),
            (Kind::Avg, None),
        ] {
            assert_eq!(answer(kind, &[]), Ok(expected), "{kind:?}");
        }
    }

    #[test]
    fn the_first_of_equals_is_kept() {
        let numbers = [Number::Int(1), Number::Float(1.0)];
        for kind in [Kind::Min, Kind::Max] {
            assert!(matches!(answer(kind, &numbers), Ok(Some(Number::Int(1)))));
        }
    }

    #[test]
    fn integers_stay_exact_beside_floats() {
        // In the order in which they come, as floats, the ones would be lost one by one.
        let mut numbers = vec![Number::Float(0.5), Number::Int(1 << 53)];
        numbers.extend(std::iter::repeat_n(Number::Int(1), 8));
        let expected = Number::Float(9_007_199_254_741_000.0);
        assert_eq!(answer(Kind::Sum, &numbers), Ok(Some(expected)));
        assert!(matches!(
            answer(Kind::Avg, &[Number::Int(1), Number::Int(2)]),
            Ok(Some(Number::Float(1.5)))
        ));
    }

    #[test]
    fn groups_come_in_the_order_of_their_first_event() -> Result<(), Overflow> {
        let mut groups = Groups::<&str>::new(vec![Kind::Count, Kind::Sum]);
        for (key, number) in [("b", 1), ("a", 2), ("b", 3)] {
            let place = groups.place(key);
            for answer in groups.at(place) {
                answer.add(Some(&Number::Int(number)))?;
            }
        }
        let mut twice = groups.clone();
        twice.merge(&groups)?;
        let mut found = Vec::new();
        for (key, answers) in twice.iter() {
            for answer in answers {
                found.push((*key, answer.result()?));
            }
        }
        let int = |int| Some(Number::Int(int));
        assert_eq!(
            found,
            [("b", int(4)), ("b", int(8)), ("a", int(2)), ("a", int(4))]
        );
        assert!(groups.at(2).is_empty());
        Ok(())
    }

    #[test]
    fn a_tagged_sum_counts_what_was_there_if_it_is_a_number() -> Result<(), Overflow> {
        let mut fold = Fold::<&str, Option<i64>>::default();
        let counts = |value: &Option<i64>| Ok::<_, Overflow>(value.map(Number::Int));
        fold.set("kept", Tagged::Value(Some(7)));
        for (key, field) in [
            ("plain", Tagged::Value(Some(100))),
            ("plain", Tagged::Sum(Number::Int(5))),
            ("text", Tagged::Value(None)),
            ("text", Tagged::Sum(Number::Int(5))),
            ("new", Tagged::Sum(Number::Float(-0.0))),
            ("gone", Tagged::Sum(Number::Int(1))),
            ("gone", Tagged::Value(None)),
        ] {
            fold.apply(key, field, counts)?;
        }
        let shown: Vec<_> = fold
            .fields()
            .iter()
            .map(|field| format!("{field:?}"))
            .collect();
        assert_eq!(
            shown,
            [
                r#"("kept", Value(Some(7)))"#,
                r#"("plain", Sum(Int(105)))"#,
                r#"("text", Sum(Int(5)))"#,
                r#"("new", Sum(Float(0.0)))"#,
                r#"("gone", Value(None))"#
            ]
        );
        Ok(())
    }
}
