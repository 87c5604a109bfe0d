//! From the hash of an id to its index.

/// A hash table of indices alone: the ids themselves stay where they are, with the caller.
///
/// Open addressing with linear probing, at most half full. A slot holds 32 bits of hash and the index + 1;
/// 0 is an empty slot. So ids are only compared where their hashes are equal, and growing needs no ids.
#[derive(Clone, Debug, Default)]
pub struct Table {
    slots: Vec<u64>,
    used: usize,
}

impl Table {
    /// A table that takes `count` indices without growing.
    #[must_use]
    pub fn with_capacity(count: usize) -> Self {
        let mut table = Self::default();
        table.grow_to(count);
        table
    }

    /// How many indices there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.used
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// The index whose id has this hash and of which `is_it` says that it is the one.
    #[inline]
    pub fn find(&self, hash: u32, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut at = self.place(hash);
        loop {
            match self.slots.get(at).copied() {
                None | Some(0) => return None,
                Some(slot) if holds(slot, hash) && is_it(index(slot)) => return Some(index(slot)),
                Some(_) => at = self.after(at),
            }
        }
    }

    /// The index that is there already, as in `find`, or else none, and `new` is there from now on.
    #[inline]
    pub fn find_or_insert(
        &mut self,
        hash: u32,
        new: u32,
        mut is_it: impl FnMut(u32) -> bool,
    ) -> Option<u32> {
        if (self.used + 1) * 2 > self.slots.len() {
            self.grow_to((self.used + 1) * 2);
        }
        let mut at = self.place(hash);
        loop {
            match self.slots.get_mut(at) {
                None => return None,
                Some(slot) if *slot == 0 => {
                    *slot = u64::from(hash) << 32 | (u64::from(new) + 1);
                    self.used += 1;
                    return None;
                }
                Some(slot) if holds(*slot, hash) && is_it(index(*slot)) => {
                    return Some(index(*slot));
                }
                Some(_) => at = self.after(at),
            }
        }
    }

    /// Takes all of another table, none of whose ids is in this one.
    pub fn extend(&mut self, other: &Self) {
        self.grow_to(self.used + other.used);
        for slot in other.slots.iter().filter(|slot| **slot != 0) {
            self.put(*slot);
        }
        self.used += other.used;
    }

    fn grow_to(&mut self, count: usize) {
        let size = (count.max(4) * 2).next_power_of_two();
        if size > self.slots.len() {
            let old = std::mem::replace(&mut self.slots, vec![0; size]);
            for slot in old.into_iter().filter(|slot| *slot != 0) {
                self.put(slot);
            }
        }
    }

    fn put(&mut self, new: u64) {
        let mut at = self.place((new >> 32) as u32);
        while let Some(slot) = self.slots.get_mut(at) {
            if *slot == 0 {
                *slot = new;
                return;
            }
            at = self.after(at);
        }
    }

    /// The upper bits of the product depend on all bits of the hash (Fibonacci hashing, Knuth 6.4).
    #[inline]
    fn place(&self, hash: u32) -> usize {
        let spread = u64::from(hash).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (spread >> 32) as usize & self.slots.len().wrapping_sub(1)
    }

    #[inline]
    fn after(&self, at: usize) -> usize {
        (at + 1) & self.slots.len().wrapping_sub(1)
    }
}

#[inline]
const fn holds(slot: u64, hash: u32) -> bool {
    slot >> 32 == hash as u64 && slot != 0
}

#[inline]
const fn index(slot: u64) -> u32 {
    (slot as u32).wrapping_sub(1)
}
