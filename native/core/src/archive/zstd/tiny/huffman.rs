//! Huffman codes of literals (RFC 8878, section 4.2).
//!
//! A code has `2^longest` parts, and a byte of weight `w` owns `2^(w-1)` of them: its code is that much shorter than
//! the longest ones. An optimal code needs the bytes sorted by how often they occur, and a tree. Here each byte
//! gets the power of two next to its share of the parts, and what is then left goes to whom it fits; that costs a
//! hundredth of the size, and takes a third of the time.
//!
//! ```text
//!   | 127 + count 8 | weights 4 each, the first one high |                       direct
//!   | size 8 | distribution of weights | stream of weights by two states |       compressed, below 128 bytes
//! ```
//!
//! The weights are those of all bytes from zero to the last one that occurs, without its own: that one fills the
//! sum of the parts up to a power of two.

use super::{
    bits::Writer,
    fse::{self, Encoder},
    table::Table,
};

/// More than there are weights, including zero.
const WEIGHTS: usize = 16;

/// Shares are counted in parts of a 65,536th.
const FRACTION: u32 = 16;

/// The accuracy of the distribution of weights. One more would make literals a little smaller, and their table
/// twice as large.
const ACCURACY: u32 = 5;

/// The most weights that can be written directly, and more than the bytes of compressed ones.
const MOST_DIRECT: usize = 128;

/// A code for bytes.
pub(super) struct Code {
    /// Of each byte the code and, in the low four bits, its length.
    codes: Table<u16, 256>,
    /// Of each byte the weight, zero where it does not occur.
    weights: Table<u8, 256>,
    /// The last byte that occurs.
    last: u8,
    /// How often each weight occurs before that.
    tally: Table<u16, WEIGHTS>,
}

impl Code {
    /// A code for the bytes up to `last`, of which at least two different ones occur, `total` together.
    pub(super) fn new(counts: &Table<u16, 256>, last: u8, total: usize) -> Self {
        let mut present = Table::<u8, 256>::EMPTY;
        let mut distinct = 0;
        for (byte, count) in counts.first(usize::from(last) + 1).iter().enumerate() {
            present.set(distinct, byte as u8);
            distinct += usize::from(*count > 0);
        }
        let present = present.first(distinct);
        let mut code = Self {
            codes: Table::EMPTY,
            weights: Table::EMPTY,
            last,
            tally: Table::EMPTY,
        };
        let log = code.weigh(present, counts, total);
        code.assign(present, log);
        code
    }

    /// Divides the parts, and says which power of two they are.
    fn weigh(&mut self, present: &[u8], counts: &Table<u16, 256>, total: usize) -> u32 {
        // The rarest byte has one part at least.
        let log = total.next_power_of_two().ilog2();
        let share = (1 << (log + FRACTION)) / total as u32;
        let mut weigh = |share: u32| {
            present.iter().fold(1_i32 << log, |left, byte| {
                let share = u32::from(counts.get((*byte).into())) * share;
                let power = share.ilog2() - FRACTION;
                self.weights.set((*byte).into(), power as u8 + 1);
                left - (1 << power)
            })
        };
        // Rounded up from three quarters of the next power on; or down, if there are too few parts for that.
        let mut left = weigh(share + share / 3);
        if left < 0 {
            left = weigh(share);
        }
        // All powers, and so what is left of them, are multiples of the smallest, which therefore fits. In texts
        // those gain most that come late: letters.
        while left > 0 {
            for byte in present.iter().rev() {
                let weight = self.weights.get((*byte).into());
                let power = 1 << (weight - 1);
                if power <= left {
                    left -= power;
                    self.weights.set((*byte).into(), weight + 1);
                }
            }
        }
        log
    }

    /// Gives out the codes: the lightest, which have the longest codes, come first, and the bytes in their order.
    fn assign(&mut self, present: &[u8], log: u32) {
        let mut tally = Table::<u16, WEIGHTS>::EMPTY;
        for byte in present {
            let weight = usize::from(self.weights.get((*byte).into()));
            tally.set(weight, tally.get(weight) + 1);
        }
        // The smallest weight has to be one.
        let unused = (1..WEIGHTS)
            .take_while(|weight| tally.get(*weight) == 0)
            .count();
        let longest = log as usize - unused;
        let mut next = Table::<u16, WEIGHTS>::EMPTY;
        let mut parts = 0;
        for weight in 1..=longest {
            let count = tally.get(weight + unused);
            self.tally.set(weight, count);
            next.set(weight, parts >> (weight - 1));
            parts += count << (weight - 1);
        }
        for byte in present {
            let weight = usize::from(self.weights.get((*byte).into())) - unused;
            let code = next.get(weight);
            next.set(weight, code + 1);
            let length = longest + 1 - weight;
            self.weights.set((*byte).into(), weight as u8);
            self.codes.set((*byte).into(), code << 4 | length as u16);
        }
        let last = usize::from(self.weights.get(self.last.into()));
        self.tally.set(last, self.tally.get(last) - 1);
        let absent = usize::from(self.last) + 1 - present.len();
        self.tally.set(0, absent as u16);
    }

    /// Writes what the reader makes the code from.
    pub(super) fn describe(&self, output: &mut [u8]) -> Option<usize> {
        let weights = self.weights.first(self.last.into());
        let direct = weights.len().div_ceil(2);
        let (size, output) = output.split_first_mut()?;
        match compressed(weights, &self.tally, output) {
            Some(written) if written < MOST_DIRECT && written < direct => {
                *size = written as u8;
                return Some(1 + written);
            }
            _ if weights.len() > MOST_DIRECT => return None,
            _ => {}
        }
        *size = 127 + weights.len() as u8;
        for (pair, byte) in weights.chunks(2).zip(output.get_mut(..direct)?) {
            *byte =
                pair.iter().fold(0, |byte, weight| byte << 4 | weight) << (4 * (pair.len() % 2));
        }
        Some(1 + direct)
    }

    /// Writes the bytes as one stream.
    pub(super) fn write(&self, data: &[u8], output: &mut [u8]) -> Option<usize> {
        let mut writer = Writer::new(output);
        // Five codes of eleven bits fit between two flushes.
        for part in data.rchunks(5) {
            for byte in part.iter().rev() {
                let code = self.codes.get((*byte).into());
                writer.add((code >> 4).into(), (code & 15).into());
            }
            writer.flush();
        }
        writer.end_backward()
    }
}

/// Writes weights by two states that take turns, the first one at even places. `None` where only one weight
/// occurs, for which there is no such stream.
fn compressed(weights: &[u8], tally: &Table<u16, WEIGHTS>, output: &mut [u8]) -> Option<usize> {
    let tally = tally.first(WEIGHTS);
    if tally
        .iter()
        .any(|count| usize::from(*count) == weights.len())
    {
        return None;
    }
    let shares = fse::shares::<WEIGHTS>(ACCURACY, tally.first_chunk()?);
    let size = fse::describe(ACCURACY, &shares, output)?;
    let encoder = Encoder::new(ACCURACY, &shares);
    let mut writer = Writer::new(output.get_mut(size..)?);

    let (before, [left, right]) = weights.split_last_chunk()?;
    let (mut left, mut right) = (encoder.last(*left), encoder.last(*right));
    let (first, pairs) = before.split_at_checked(before.len() % 2)?;
    for part in pairs.rchunks(8) {
        for pair in part.rchunks_exact(2) {
            if let [a, b] = pair {
                right = encoder.write(*b, right, &mut writer);
                left = encoder.write(*a, left, &mut writer);
            }
        }
        writer.flush();
    }
    if let [first] = first {
        (left, right) = (encoder.write(*first, right, &mut writer), left);
    }
    encoder.end(right, &mut writer);
    encoder.end(left, &mut writer);
    Some(size + writer.end_backward()?)
}
