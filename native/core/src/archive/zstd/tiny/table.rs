//! Arrays that are never read or written outside of them.

/// An array of `N` values, a power of two, whose index is taken modulo `N`: what would be a panic elsewhere is,
/// behind the assertion of the tests, a wrong value here, and no check is left for the processor.
pub(super) struct Table<T, const N: usize>([T; N]);

/// Has a value for what nothing was written to.
pub(super) trait Empty: Copy {
    const EMPTY: Self;
}

impl Empty for u8 {
    const EMPTY: Self = 0;
}

impl Empty for u16 {
    const EMPTY: Self = 0;
}

impl<T: Empty, const N: usize> Table<T, N> {
    const MASK: usize = {
        assert!(N.is_power_of_two());
        N - 1
    };

    pub(super) const fn new(values: [T; N]) -> Self {
        Self(values)
    }

    /// Where nothing was written. A constant, so that it is made by filling memory, not value by value.
    pub(super) const EMPTY: Self = Self([T::EMPTY; N]);

    #[inline(always)]
    pub(super) fn get(&self, index: usize) -> T {
        debug_assert!(index < N, "{index} of {N}");
        self.0.get(index & Self::MASK).copied().unwrap_or(T::EMPTY)
    }

    #[inline(always)]
    pub(super) fn set(&mut self, index: usize, value: T) {
        debug_assert!(index < N, "{index} of {N}");
        if let Some(slot) = self.0.get_mut(index & Self::MASK) {
            *slot = value;
        }
    }

    /// The first `count` values.
    #[inline(always)]
    pub(super) fn first(&self, count: usize) -> &[T] {
        debug_assert!(count <= N, "{count} of {N}");
        self.0.get(..count).unwrap_or_default()
    }
}
