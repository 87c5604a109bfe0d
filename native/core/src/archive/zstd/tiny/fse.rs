//! Finite state entropy, the tabled asymmetric numeral system of Zstandard (RFC 8878, section 4.1).
//!
//! A symbol with `c` of the `size = 2^log` parts of a distribution owns `c` states. To write it in `state` (from
//! `size` to twice as many), bits are moved out of the state until `c <= state < 2c` is left, and this selects which
//! of the symbol's states is next. The reader, who goes backward, finds the symbol by the state and moves the
//! bits back in.

use super::{
    bits::Writer,
    table::{Empty, Table},
};

/// No distribution here has more symbols or states.
pub(super) const MOST: usize = 64;

#[derive(Clone, Copy)]
struct Symbol {
    /// How many bits move out of a state, if it is not below `limit`; else one less.
    bits: u8,
    limit: u8,
    /// Where this symbol's states are, less its number of them.
    base: u8,
}

impl Empty for Symbol {
    const EMPTY: Self = Self {
        bits: 0,
        limit: 0,
        base: 0,
    };
}

/// What writes symbols of one distribution.
pub(super) struct Encoder {
    log: u32,
    symbols: Table<Symbol, MOST>,
    states: Table<u8, MOST>,
}

impl Encoder {
    /// The distribution that knows one symbol, which takes no bits.
    pub(super) const SINGLE: Self = Self {
        log: 0,
        symbols: Table::EMPTY,
        states: Table::EMPTY,
    };

    /// The counts are in parts of `2^log`, at most 64; -1 is one part too, but placed behind all others.
    pub(super) fn new(log: u32, counts: &[i8]) -> Self {
        let size = 1 << log;
        let mut encoder = Self {
            log,
            ..Self::SINGLE
        };
        let owners = spread(size, counts);
        let mut next = Table::<u8, MOST>::EMPTY;
        let mut first = 0_u8;
        for (symbol, count) in counts.iter().enumerate() {
            let count = count.unsigned_abs();
            next.set(symbol, first);
            if count > 0 {
                let bits = log - count.ilog2();
                encoder.symbols.set(
                    symbol,
                    Symbol {
                        bits: bits as u8,
                        limit: count << bits,
                        base: first.wrapping_sub(count),
                    },
                );
            }
            first += count;
        }
        for state in 0..size {
            let owner = owners.get(state).into();
            let place = next.get(owner);
            encoder.states.set(place.into(), (size + state) as u8);
            next.set(owner, place + 1);
        }
        encoder
    }

    /// The state that the last symbol is read from: of all it has the one that asks for most bits, and for at
    /// least one unless it is the only symbol.
    #[inline(always)]
    pub(super) fn last(&self, symbol: u8) -> u32 {
        let Symbol { bits, limit, base } = self.symbols.get(symbol.into());
        self.next(base.wrapping_add(limit >> bits))
    }

    /// Writes what leads from the symbol to `state`, and gives the state that the symbol is read from.
    #[inline(always)]
    pub(super) fn write(&self, symbol: u8, state: u32, output: &mut Writer) -> u32 {
        let Symbol { bits, limit, base } = self.symbols.get(symbol.into());
        let bits = u32::from(bits) - u32::from(state < u32::from(limit));
        output.add(state & ((1 << bits) - 1), bits);
        self.next(base.wrapping_add((state >> bits) as u8))
    }

    #[inline(always)]
    fn next(&self, place: u8) -> u32 {
        self.states.get(place.into()).into()
    }

    /// How many bits symbols take that occur so often.
    pub(super) fn bits(&self, tally: &[u16; MOST]) -> usize {
        let parts = tally.iter().enumerate().map(|(symbol, count)| {
            let Symbol { bits, limit, .. } = self.symbols.get(symbol);
            let parts = ((usize::from(bits) + 1) << self.log) - usize::from(limit);
            usize::from(*count) * parts
        });
        parts.sum::<usize>() >> self.log
    }

    /// Writes where the reader starts.
    #[inline(always)]
    pub(super) fn end(&self, state: u32, output: &mut Writer) {
        output.add(state & ((1 << self.log) - 1), self.log);
    }
}

/// Which symbol owns each state.
fn spread(size: usize, counts: &[i8]) -> Table<u8, MOST> {
    let mut owners = Table::EMPTY;
    let mut high = size;
    for symbol in (0..)
        .zip(counts)
        .filter_map(|(symbol, count)| (*count < 0).then_some(symbol))
    {
        high -= 1;
        owners.set(high, symbol);
    }
    let step = (size >> 1) + (size >> 3) + 3;
    let mut at = 0;
    for (symbol, count) in (0_u8..).zip(counts) {
        for _ in 0..*count {
            owners.set(at, symbol);
            at = (at + step) & (size - 1);
            while at >= high {
                at = (at + step) & (size - 1);
            }
        }
    }
    owners
}

/// Divides `2^log` parts among what was seen so often: whatever was seen at all has one, and gets its share of the
/// others.
pub(super) fn shares<const N: usize>(log: u32, seen: &[u16; N]) -> [i8; N] {
    let total: u32 = seen.iter().map(|count| u32::from(*count)).sum();
    let distinct = seen.iter().filter(|count| **count > 0).count();
    let rest = (1 << log) - distinct as u32;
    let (mut sum, mut given) = (0, 0);
    seen.map(|count| {
        sum += u32::from(count);
        let share = sum * rest / total - given;
        given += share;
        share as i8 + i8::from(count > 0)
    })
}

/// Writes the counts, none of which is -1, as the description of a distribution.
pub(super) fn describe(log: u32, counts: &[i8], output: &mut [u8]) -> Option<usize> {
    let mut writer = Writer::new(output);
    writer.add(log - 5, 4);
    let mut left = 1_u32 << log;
    let mut counts = counts;
    while let Some((&count, rest)) = counts.split_first() {
        // It ends where all parts are given out.
        if left == 0 {
            break;
        }
        // `left + 2` values are possible, and so many of them take a bit less.
        let bits = (left + 1).ilog2() + 1;
        let short = (1 << bits) - 2 - left;
        let value = count as u32 + 1;
        if value < short {
            writer.add(value, bits - 1);
        } else if value < 1 << (bits - 1) {
            writer.add(value, bits);
        } else {
            writer.add(value + short, bits);
        }
        left -= count as u32;
        counts = rest;
        if count == 0 {
            // How many zeros follow, in pairs of bits; three says that more may.
            let zeros = rest.iter().take_while(|count| **count == 0).count();
            (0..zeros / 3).for_each(|_| writer.add(3, 2));
            writer.add((zeros % 3) as u32, 2);
            counts = rest.get(zeros..).unwrap_or_default();
        }
        writer.flush();
    }
    writer.end()
}
