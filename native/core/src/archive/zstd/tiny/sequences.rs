//! The sequences section of a block (RFC 8878, section 3.1.1.3.2).
//!
//! ```text
//!   count 1       below 128, and the section ends behind zero; else 2, the first one 128
//!   modes 1       | literal lengths 2 | offsets 2 | match lengths 2 | 0 0 |: 0 predefined, 1 single, 2 own
//!   codes         for each kind that is single one byte, for each that has its own a distribution
//!   stream        read from its end: where the three states start, then for each sequence
//!                 | rest of the offset | of the match length | of the literal length |
//!                 and but for the last one what leads to the next states
//!                 | literal lengths | match lengths | offsets |
//! ```

use super::{
    SPACE,
    bits::Writer,
    copy,
    fse::{self, Encoder},
    table::{Empty, Table},
};
use std::sync::LazyLock;

/// A sequence: literals, and a repetition of what stands before.
#[derive(Clone, Copy)]
pub(super) struct Sequence {
    pub(super) literals: u16,
    pub(super) length: u16,
    /// As the format writes it: one to three are offsets used before, others the offset plus three.
    pub(super) offset: u16,
}

impl Empty for Sequence {
    const EMPTY: Self = Self {
        literals: 0,
        length: 0,
        offset: 0,
    };
}

/// How the reader comes by a distribution.
const PREDEFINED_MODE: u8 = 0;
const SINGLE_MODE: u8 = 1;
const OWN_MODE: u8 = 2;

/// From so many sequences on a distribution of their own can be worth its description.
const MANY: usize = 32;
const ACCURACY: u32 = 6;

/// The encoders of the three codes of a sequence.
#[derive(Clone, Copy)]
struct Encoders<T> {
    literals: T,
    offset: T,
    length: T,
}

/// Where a block brings no distributions: section 3.1.1.3.2.2.
static PREDEFINED: LazyLock<Encoders<Encoder>> = LazyLock::new(|| Encoders {
    literals: Encoder::new(6, &LITERAL_LENGTHS),
    offset: Encoder::new(5, &OFFSETS),
    length: Encoder::new(6, &MATCH_LENGTHS),
});
static SINGLE: Encoder = Encoder::SINGLE;

const LITERAL_LENGTHS: [i8; 36] = [
    4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1, 1, 1,
    -1, -1, -1, -1,
];
const MATCH_LENGTHS: [i8; 53] = [
    1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1,
];
const OFFSETS: [i8; 29] = [
    1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1,
];

/// The extra bits of each code: a code stands for as many values as these can tell apart, and the next one for
/// those that follow. All codes of the numbers below [`SPACE`].
const LITERAL_LENGTH_BITS: [u8; 29] = [
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 4, 6, 7, 8, 9,
];
const MATCH_LENGTH_BITS: [u8; 46] = [
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 7, 8, 9,
];

/// A code, and how many of the low bits of the number follow it.
#[derive(Clone, Copy)]
struct Code {
    code: u8,
    bits: u8,
}

impl Empty for Code {
    const EMPTY: Self = Self { code: 0, bits: 0 };
}

/// The length that the first code of match lengths stands for.
const SHORTEST: u16 = 3;

static LITERAL_LENGTH_CODES: Table<Code, SPACE> = codes(&LITERAL_LENGTH_BITS);
static MATCH_LENGTH_CODES: Table<Code, SPACE> = codes(&MATCH_LENGTH_BITS);

#[allow(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const fn codes(bits: &[u8]) -> Table<Code, SPACE> {
    let mut codes = [Code::EMPTY; SPACE];
    let (mut code, mut number) = (0, 0);
    while code < bits.len() {
        let end = number + (1 << bits[code]);
        while number < end {
            codes[number] = Code {
                code: code as u8,
                bits: bits[code],
            };
            number += 1;
        }
        code += 1;
    }
    assert!(number == SPACE);
    Table::new(codes)
}

impl Sequence {
    #[inline(always)]
    fn literals(self) -> Code {
        LITERAL_LENGTH_CODES.get(self.literals.into())
    }

    #[inline(always)]
    fn length(self) -> Code {
        MATCH_LENGTH_CODES.get((self.length - SHORTEST).into())
    }

    #[inline(always)]
    fn offset(self) -> Code {
        let bits = self.offset.ilog2() as u8;
        Code { code: bits, bits }
    }

    /// Writes what the codes do not say.
    #[inline(always)]
    fn rest(self, output: &mut Writer) {
        self.literals().rest(self.literals, output);
        self.length().rest(self.length - SHORTEST, output);
        self.offset().rest(self.offset, output);
    }
}

impl Code {
    #[inline(always)]
    fn rest(self, number: u16, output: &mut Writer) {
        let low = u32::from(number) & ((1 << self.bits) - 1);
        output.add(low, self.bits.into());
    }
}

/// Writes the section.
pub(super) fn write(sequences: &[Sequence], output: &mut [u8]) -> Option<usize> {
    let Some((last, before)) = sequences.split_last() else {
        return copy(&[0], output);
    };
    let count = sequences.len() as u8;
    let head = if count < 128 {
        &[count][..]
    } else {
        &[128, count]
    };
    let modes = copy(head, output)?;
    let mut mode = 0;
    let mut size = modes + 1;
    let (mut literals, mut offset, mut length) = (None, None, None);
    let mut choose = |code: fn(Sequence) -> Code, predefined, own| {
        let codes = sequences.iter().map(|sequence| code(*sequence).code);
        let choice = choose(codes, predefined, own, output.get_mut(size..)?)?;
        mode = mode << 2 | choice.mode;
        size += choice.size;
        Some(choice.encoder)
    };
    let encoders = Encoders {
        literals: choose(Sequence::literals, &PREDEFINED.literals, &mut literals)?,
        offset: choose(Sequence::offset, &PREDEFINED.offset, &mut offset)?,
        length: choose(Sequence::length, &PREDEFINED.length, &mut length)?,
    };
    *output.get_mut(modes)? = mode << 2;
    Some(size + stream(*last, before, encoders, output.get_mut(size..)?)?)
}

/// How codes are written, and how much the reader is told about it.
struct Choice<'a> {
    mode: u8,
    size: usize,
    encoder: &'a Encoder,
}

/// What takes the least space. One code alone takes a byte, less than two by any distribution.
#[inline(always)]
fn choose<'a>(
    codes: impl ExactSizeIterator<Item = u8> + Clone,
    predefined: &'a Encoder,
    own: &'a mut Option<Encoder>,
    output: &mut [u8],
) -> Option<Choice<'a>> {
    let first = codes.clone().next()?;
    let mut choice = Choice {
        mode: PREDEFINED_MODE,
        size: 0,
        encoder: predefined,
    };
    if codes.len() > 1 && codes.clone().all(|code| code == first) {
        choice.mode = SINGLE_MODE;
        choice.size = copy(&[first], output)?;
        choice.encoder = &SINGLE;
    } else if codes.len() >= MANY {
        let mut tally = [0; fse::MOST];
        for code in codes {
            *tally.get_mut(usize::from(code))? += 1;
        }
        let shares = fse::shares(ACCURACY, &tally);
        let size = fse::describe(ACCURACY, &shares, output)?;
        let encoder = own.insert(Encoder::new(ACCURACY, &shares));
        if encoder.bits(&tally) + 8 * size < predefined.bits(&tally) {
            choice.mode = OWN_MODE;
            choice.size = size;
            choice.encoder = encoder;
        }
    }
    Some(choice)
}

/// Writes the stream, from its end as it is read.
fn stream(
    last: Sequence,
    before: &[Sequence],
    encoders: Encoders<&Encoder>,
    output: &mut [u8],
) -> Option<usize> {
    let mut writer = Writer::new(output);
    let mut literals = encoders.literals.last(last.literals().code);
    let mut offset = encoders.offset.last(last.offset().code);
    let mut length = encoders.length.last(last.length().code);
    last.rest(&mut writer);
    writer.flush();
    for sequence in before.iter().rev() {
        offset = encoders
            .offset
            .write(sequence.offset().code, offset, &mut writer);
        length = encoders
            .length
            .write(sequence.length().code, length, &mut writer);
        literals = encoders
            .literals
            .write(sequence.literals().code, literals, &mut writer);
        sequence.rest(&mut writer);
        writer.flush();
    }
    encoders.length.end(length, &mut writer);
    encoders.offset.end(offset, &mut writer);
    encoders.literals.end(literals, &mut writer);
    writer.end_backward()
}
