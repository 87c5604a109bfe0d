//! Sets of indices as bits.

/// A set of indices below a bound.
#[derive(Clone, Debug)]
pub struct Bits(Vec<u64>);

impl Bits {
    /// The empty set of indices below `bound`.
    #[must_use]
    pub fn new(bound: usize) -> Self {
        Self(vec![0; bound.div_ceil(64)])
    }

    /// Puts an index in; whether it was not in before. One beyond the last word never is in.
    #[inline]
    pub fn insert(&mut self, index: u32) -> bool {
        let bit = 1 << (index % 64);
        match self.0.get_mut(index as usize / 64) {
            Some(word) if *word & bit == 0 => {
                *word |= bit;
                true
            }
            _ => false,
        }
    }

    /// Takes an index out.
    #[inline]
    pub fn remove(&mut self, index: u32) {
        if let Some(word) = self.0.get_mut(index as usize / 64) {
            *word &= !(1 << (index % 64));
        }
    }

    /// Whether the index is in.
    #[inline]
    #[must_use]
    pub fn contains(&self, index: u32) -> bool {
        let word = self.0.get(index as usize / 64);
        word.is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    /// How many words of 64 indices there are.
    #[must_use]
    pub fn words(&self) -> usize {
        self.0.len()
    }

    /// The indices, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0
            .iter()
            .zip(0..)
            .flat_map(|(word, at)| ones(*word, at))
    }
}

fn ones(word: u64, at: u32) -> impl Iterator<Item = u32> {
    let rest = std::iter::successors(Some(word), |word| Some(word & word.wrapping_sub(1)));
    rest.take_while(|word| *word != 0)
        .map(move |word| at * 64 + word.trailing_zeros())
}

/// A set that gives its smallest index back first, each step in a time of log64 of the bound.
///
/// Level 0 has a bit for each index, each further level one for each word of the level below that is not
/// zero; the last level is one word.
#[derive(Clone, Debug)]
pub struct Queue(Vec<Vec<u64>>);

impl Queue {
    /// The empty queue of indices below `bound`.
    #[must_use]
    pub fn new(bound: usize) -> Self {
        let mut levels = vec![vec![0; bound.div_ceil(64).max(1)]];
        let mut words = bound.div_ceil(64);
        while words > 1 {
            words = words.div_ceil(64);
            levels.push(vec![0; words]);
        }
        Self(levels)
    }

    /// Puts an index in.
    #[inline]
    pub fn push(&mut self, index: u32) {
        let mut at = index as usize;
        for level in &mut self.0 {
            let Some(word) = level.get_mut(at / 64) else {
                return;
            };
            let was_empty = *word == 0;
            *word |= 1 << (at % 64);
            if !was_empty {
                return;
            }
            at /= 64;
        }
    }

    /// Takes the smallest index out.
    #[inline]
    pub fn pop(&mut self) -> Option<u32> {
        let mut at = 0_usize;
        for level in self.0.iter().rev() {
            let word = level.get(at).filter(|word| **word != 0)?;
            at = at * 64 + word.trailing_zeros() as usize;
        }
        let smallest = at;
        for level in &mut self.0 {
            let word = level.get_mut(at / 64)?;
            *word &= !(1 << (at % 64));
            if *word != 0 {
                break;
            }
            at /= 64;
        }
        u32::try_from(smallest).ok()
    }
}
