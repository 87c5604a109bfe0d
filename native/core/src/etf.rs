//! Views of the external term format: terms are looked at where they lie, and nothing is built.
//!
//! What is read here was written by `term_to_binary(Term, [deterministic, {minor_version, 2}])`. So a term has one
//! encoding only (within a major release of OTP: the order of a map's keys), and two terms are the same, as `=:=`
//! has it, where their bytes are: that is how keys are found, values compared and groups formed. Terms that no
//! such call writes (funs, pids, ports, references, atoms in Latin-1, floats as text) are [`Malformed`] here.
//!
//! Each offset is checked, walks are loops that count what is still to come, and nothing is allocated, so the
//! worst that hostile bytes can do is to end a walk early.
//!
//! Tags and layouts: "External Term Format" in the ERTS documentation.

use crate::number::Number;

/// The byte in front of a whole term.
pub const VERSION: u8 = 131;

const NEW_FLOAT: u8 = 70;
const BIT_BINARY: u8 = 77;
const SMALL_INTEGER: u8 = 97;
const INTEGER: u8 = 98;
const SMALL_TUPLE: u8 = 104;
const LARGE_TUPLE: u8 = 105;
const NIL: u8 = 106;
const STRING: u8 = 107;
const LIST: u8 = 108;
const BINARY: u8 = 109;
const SMALL_BIG: u8 = 110;
const LARGE_BIG: u8 = 111;
const MAP: u8 = 116;
const ATOM_UTF8: u8 = 118;
const SMALL_ATOM_UTF8: u8 = 119;

/// More bytes an integer does not have, so that sums of such ones stay below what the virtual machine takes.
pub const MAX_BIG: usize = 524_000;

/// The bytes are no term, or none that a packer writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// A term: its encoding begins with these bytes, and something else may follow.
#[derive(Clone, Copy, Debug)]
pub struct Term<'a>(&'a [u8]);

/// What a term is, as far as questions ask.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind<'a> {
    /// An integer that fits.
    Integer(i64),
    /// One that does not: its sign, and its absolute value, the lowest byte first.
    Big {
        /// Whether it is below zero.
        is_negative: bool,
        /// The absolute value.
        magnitude: &'a [u8],
    },
    /// A finite float.
    Float(f64),
    /// An atom by its name in UTF-8.
    Atom(&'a [u8]),
    /// A binary of whole bytes.
    Binary(&'a [u8]),
    /// A tuple with its elements.
    Tuple(Terms<'a>),
    /// A list whose elements are all bytes, which are these.
    Bytes(&'a [u8]),
    /// A list with its elements and behind them its tail; the empty list has no tail either.
    List(Terms<'a>),
    /// A map, keys and values in turn.
    Map(Terms<'a>),
    /// A bit string that is no binary.
    Bits,
}

impl<'a> Term<'a> {
    /// The term at the beginning of these bytes, without their version byte.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The term behind the version byte.
    ///
    /// # Errors
    /// [`Malformed`] without it.
    #[inline]
    pub fn versioned(bytes: &'a [u8]) -> Result<Self, Malformed> {
        match bytes.split_first() {
            Some((&VERSION, term)) => Ok(Self(term)),
            _ => Err(Malformed),
        }
    }

    /// The term behind the version byte, when it is well-formed and all there is.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn whole(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let term = Self::versioned(bytes)?;
        match checked(term.0)? {
            [] => Ok(term),
            _ => Err(Malformed),
        }
    }

    /// Its encoding, and nothing behind it.
    ///
    /// # Errors
    /// [`Malformed`].
    #[inline]
    pub fn encoded(self) -> Result<&'a [u8], Malformed> {
        split(self.0).map(|(term, _)| term)
    }

    /// What it is. Of what lies deeper only [`Terms`] tell.
    ///
    /// # Errors
    /// [`Malformed`].
    #[inline]
    pub fn kind(self) -> Result<Kind<'a>, Malformed> {
        let (&tag, body) = self.0.split_first().ok_or(Malformed)?;
        Ok(match tag {
            SMALL_INTEGER => Kind::Integer(i64::from(*body.first().ok_or(Malformed)?)),
            INTEGER => Kind::Integer(i64::from(i32::from_be_bytes(*chunk(body)?))),
            SMALL_BIG => {
                let (&size, body) = body.split_first().ok_or(Malformed)?;
                big(size.into(), body)?
            }
            LARGE_BIG => {
                let (size, body) = sized(body)?;
                if size > MAX_BIG {
                    return Err(Malformed);
                }
                big(size, body)?
            }
            NEW_FLOAT => Kind::Float(finite(f64::from_be_bytes(*chunk(body)?))?),
            SMALL_ATOM_UTF8 => {
                let (&size, body) = body.split_first().ok_or(Malformed)?;
                Kind::Atom(first(body, size.into())?)
            }
            ATOM_UTF8 => Kind::Atom(short_sized(body)?),
            BINARY => {
                let (size, body) = sized(body)?;
                Kind::Binary(first(body, size)?)
            }
            BIT_BINARY => Kind::Bits,
            SMALL_TUPLE => {
                let (&arity, body) = body.split_first().ok_or(Malformed)?;
                Kind::Tuple(Terms::new(arity.into(), body))
            }
            LARGE_TUPLE => {
                let (arity, body) = sized(body)?;
                Kind::Tuple(Terms::new(arity as u64, body))
            }
            STRING => Kind::Bytes(short_sized(body)?),
            NIL => Kind::List(Terms::new(0, body)),
            LIST => {
                let (length, body) = sized(body)?;
                Kind::List(Terms::new(length as u64, body))
            }
            MAP => {
                let (size, body) = sized(body)?;
                Kind::Map(Terms::new(2 * size as u64, body))
            }
            _ => return Err(Malformed),
        })
    }

    /// The keys and values of a map in turn; none of what is no map.
    ///
    /// # Errors
    /// [`Malformed`] where not even its size is there.
    #[inline]
    pub fn pairs(self) -> Result<Option<Terms<'a>>, Malformed> {
        if !self.is_map() {
            return Ok(None);
        }
        let (size, body) = sized(self.0.get(1..).ok_or(Malformed)?)?;
        Ok(Some(Terms::new(2 * size as u64, body)))
    }

    /// Whether it is a map.
    #[must_use]
    #[inline]
    pub fn is_map(self) -> bool {
        self.0.first() == Some(&MAP)
    }

    /// The map behind the version byte, if that is what begins there.
    #[must_use]
    #[inline]
    pub fn versioned_map(bytes: &'a [u8]) -> Option<Self> {
        match bytes {
            [VERSION, term @ ..] if term.first() == Some(&MAP) => Some(Self(term)),
            _ => None,
        }
    }

    /// The bytes that it begins, and what stands behind them.
    #[must_use]
    pub const fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// Whether it is the term of this encoding.
    #[must_use]
    #[inline]
    pub fn is(self, encoded: &[u8]) -> bool {
        self.0.starts_with(encoded)
    }

    /// The number that it is.
    ///
    /// # Errors
    /// [`Malformed`].
    #[inline]
    pub fn number(self) -> Result<Option<Number>, Malformed> {
        // Most are one of these.
        match self.0 {
            [SMALL_INTEGER, byte, ..] => Ok(Some(Number::Int((*byte).into()))),
            [INTEGER, a, b, c, d, ..] => {
                let value = i32::from_be_bytes([*a, *b, *c, *d]);
                Ok(Some(Number::Int(value.into())))
            }
            _ => self.other_number(),
        }
    }

    #[inline(never)]
    fn other_number(self) -> Result<Option<Number>, Malformed> {
        Ok(match self.kind()? {
            Kind::Integer(value) => Some(Number::Int(value)),
            Kind::Float(value) => Some(Number::Float(value)),
            Kind::Big {
                is_negative,
                magnitude,
            } => Some(Number::from_le_bytes(is_negative, magnitude).ok_or(Malformed)?),
            _ => None,
        })
    }

    /// The binary that it is.
    ///
    /// # Errors
    /// [`Malformed`].
    #[inline]
    pub fn binary(self) -> Result<Option<&'a [u8]>, Malformed> {
        if let [BINARY, body @ ..] = self.0 {
            let (size, body) = sized(body)?;
            return first(body, size).map(Some);
        }
        Ok(match self.kind()? {
            Kind::Binary(bytes) => Some(bytes),
            _ => None,
        })
    }

    /// What is in a `{sum, _}`.
    #[must_use]
    #[inline]
    pub fn tagged_sum(self) -> Option<Self> {
        self.0.strip_prefix(b"h\x02w\x03sum").map(Self)
    }

    /// What is in an `{overwrite, _}`.
    #[must_use]
    #[inline]
    pub fn tagged_overwrite(self) -> Option<Self> {
        self.0.strip_prefix(b"h\x02w\x09overwrite").map(Self)
    }

    /// The value under a key; a term that is no map has none.
    ///
    /// # Errors
    /// [`Malformed`], where that shows on the way to the key.
    #[inline]
    pub fn get(self, key: &Key) -> Result<Option<Term<'a>>, Malformed> {
        if !self.is_map() {
            return Ok(None);
        }
        let (size, mut rest) = sized(self.0.get(1..).ok_or(Malformed)?)?;
        for _ in 0..size {
            if let Some(value) = key.behind(rest) {
                return Ok(Some(Term(value)));
            }
            rest = after(after(rest)?)?;
        }
        Ok(None)
    }
}

/// The encoding of a key that is looked for, with its first and last bytes as numbers: most other keys differ
/// from it there, and a key of up to 16 bytes is nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    bytes: Box<[u8]>,
    first: u64,
    /// Those of the first 8 bytes that there are.
    mask: u64,
    last: u64,
}

/// As many bytes are compared at once.
const WORD: usize = 8;

impl Key {
    /// A key by its encoding.
    #[must_use]
    pub fn new(encoded: &[u8]) -> Self {
        let word = |bytes: &[u8]| {
            let little = bytes.iter().rev();
            little.fold(0, |word, byte| word << 8 | u64::from(*byte))
        };
        let ones = [0xFF; WORD];
        let some = encoded.len().min(WORD);
        let last = encoded.len().saturating_sub(WORD);
        Self {
            bytes: encoded.into(),
            first: word(encoded.get(..some).unwrap_or_default()),
            mask: word(ones.get(..some).unwrap_or_default()),
            last: word(encoded.get(last..).unwrap_or_default()),
        }
    }

    /// What follows the key, where `bytes` begin with it: then it is the term there, since no encoding is the
    /// beginning of another one.
    #[inline]
    fn behind<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let size = self.bytes.len();
        let Some(first) = bytes.first_chunk::<WORD>() else {
            return bytes.strip_prefix(&*self.bytes);
        };
        if u64::from_le_bytes(*first) & self.mask != self.first {
            return None;
        }
        if size > 2 * WORD {
            return bytes.strip_prefix(&*self.bytes);
        }
        if size > WORD {
            let last = bytes.get(size - WORD..)?.first_chunk::<WORD>()?;
            if u64::from_le_bytes(*last) != self.last {
                return None;
            }
        }
        bytes.get(size..)
    }
}

/// One walk over a map for the values of several keys: it goes as far as it is asked to, and answers for each
/// key as [`Term::get`] does, errors included.
#[derive(Debug)]
pub struct Walk<'a> {
    /// The next key; or the value of the last one found, which nobody has had to skip yet.
    rest: &'a [u8],
    is_at_value: bool,
    left: usize,
    values: Vec<Option<Term<'a>>>,
}

impl<'a> Walk<'a> {
    /// For so many keys, over a map without any.
    #[must_use]
    pub fn new(keys: usize) -> Self {
        Self {
            rest: &[],
            is_at_value: false,
            left: 0,
            values: vec![None; keys],
        }
    }

    /// Begins again with another map.
    #[inline]
    pub fn begin(&mut self, map: Term<'a>) {
        self.is_at_value = false;
        self.values.fill(None);
        // Where not even the size is there, a pair is yet to come and has no bytes.
        let head = map.0.get(1..).ok_or(Malformed).and_then(sized);
        (self.left, self.rest) = head.unwrap_or((1, &[]));
    }

    /// The value under the key at this place of the keys, which are always the same ones.
    ///
    /// # Errors
    /// [`Malformed`], where that shows on the way to the key.
    #[inline]
    pub fn get(&mut self, keys: &[Key], place: usize) -> Result<Option<Term<'a>>, Malformed> {
        loop {
            if let Some(Some(value)) = self.values.get(place) {
                return Ok(Some(*value));
            }
            if self.is_at_value {
                self.skip()?;
                self.is_at_value = false;
            }
            if self.left == 0 {
                return Ok(None);
            }
            let mut value = None;
            for (key, known) in keys.iter().zip(&mut self.values) {
                // The first one counts.
                if known.is_none() {
                    if let Some(behind) = key.behind(self.rest) {
                        *known = Some(Term(behind));
                        value = Some(behind);
                    }
                }
            }
            match value {
                Some(value) => {
                    self.rest = value;
                    self.is_at_value = true;
                }
                None => {
                    self.skip()?;
                    self.skip()?;
                }
            }
            self.left -= 1;
        }
    }

    /// Where it fails there is nothing behind: whoever goes on fails again.
    #[inline]
    fn skip(&mut self) -> Result<(), Malformed> {
        match after(self.rest) {
            Ok(rest) => {
                self.rest = rest;
                Ok(())
            }
            Err(Malformed) => {
                self.rest = &[];
                Err(Malformed)
            }
        }
    }
}

/// Terms one behind the other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Terms<'a> {
    count: u64,
    bytes: &'a [u8],
}

impl<'a> Terms<'a> {
    fn new(count: u64, bytes: &'a [u8]) -> Self {
        Self { count, bytes }
    }

    /// How many are still to come; as the input states it, so no size to reserve memory by.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The next one, none at the end.
    ///
    /// # Errors
    /// [`Malformed`].
    #[inline]
    pub fn next_term(&mut self) -> Result<Option<Term<'a>>, Malformed> {
        if self.count == 0 {
            return Ok(None);
        }
        let term = Term(self.bytes);
        self.bytes = after(self.bytes)?;
        self.count -= 1;
        Ok(Some(term))
    }

    /// The next two, as the encodings that they are: a key and its value. None at the end.
    ///
    /// # Errors
    /// [`Malformed`].
    #[inline]
    pub fn next_pair(&mut self) -> Result<Option<[&'a [u8]; 2]>, Malformed> {
        if self.count < 2 {
            return Ok(None);
        }
        let (key, rest) = split(self.bytes)?;
        let (value, rest) = split(rest)?;
        self.bytes = rest;
        self.count -= 2;
        Ok(Some([key, value]))
    }

    /// The bytes behind all of them, where the tail of a list is.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn behind(mut self) -> Result<Term<'a>, Malformed> {
        while self.next_term()?.is_some() {}
        Ok(Term(self.bytes))
    }

    /// All of them, when there are exactly as many.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn exactly<const N: usize>(mut self) -> Result<Option<[Term<'a>; N]>, Malformed> {
        if self.count != N as u64 {
            return Ok(None);
        }
        let mut all = [Term(self.bytes); N];
        for place in &mut all {
            *place = self.next_term()?.ok_or(Malformed)?;
        }
        Ok(Some(all))
    }
}

/// Reads a question, which is a term in its canonical form, from its beginning to its end.
///
/// [`None`] is always: this is not what it should be.
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// At the term behind the version byte.
    #[must_use]
    pub fn new(canonical: &'a [u8]) -> Option<Self> {
        Term::versioned(canonical).ok().map(|term| Self(term.0))
    }

    /// Whether all has been read.
    #[must_use]
    pub fn is_at_end(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a tuple begins here.
    #[must_use]
    pub fn is_at_tuple(&self) -> bool {
        self.0.first() == Some(&SMALL_TUPLE)
    }

    /// Enters a tuple: the number of its elements.
    pub fn tuple(&mut self) -> Option<u8> {
        let [SMALL_TUPLE, arity, rest @ ..] = self.0 else {
            return None;
        };
        self.0 = rest;
        Some(*arity)
    }

    /// The name of an atom.
    pub fn atom(&mut self) -> Option<&'a [u8]> {
        match Term(self.term()?).kind() {
            Ok(Kind::Atom(name)) => Some(name),
            _ => None,
        }
    }

    /// A binary.
    pub fn binary(&mut self) -> Option<&'a [u8]> {
        Term(self.term()?).binary().ok()?
    }

    /// Any term by its encoding.
    pub fn term(&mut self) -> Option<&'a [u8]> {
        let rest = checked(self.0).ok()?;
        let term = self.0.get(..self.0.len() - rest.len())?;
        self.0 = rest;
        Some(term)
    }

    /// Enters a list, behind whose elements its [`end`](Self::end) is to be read, if it has some.
    pub fn enter_list(&mut self) -> Option<u64> {
        let (&tag, body) = self.0.split_first()?;
        let (length, rest) = match tag {
            NIL => (0, body),
            LIST => sized(body).ok()?,
            _ => return None,
        };
        self.0 = rest;
        Some(length as u64)
    }

    /// The end of a proper list.
    pub fn end(&mut self) -> Option<()> {
        self.0 = self.0.strip_prefix(&[NIL])?;
        Some(())
    }

    /// The elements of a proper list by their encodings.
    pub fn list(&mut self) -> Option<Vec<Box<[u8]>>> {
        if self.0.first() == Some(&STRING) {
            let Ok(Kind::Bytes(bytes)) = Term(self.term()?).kind() else {
                return None;
            };
            let elements = bytes.iter().map(|byte| [SMALL_INTEGER, *byte].into());
            return Some(elements.collect());
        }
        let length = self.enter_list()?;
        let mut elements = Vec::new();
        for _ in 0..length {
            elements.push(self.term()?.into());
        }
        if length > 0 {
            self.end()?;
        }
        Some(elements)
    }
}

/// The term at the beginning of these bytes, and what is behind it.
#[inline]
fn split(bytes: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let rest = after(bytes)?;
    let size = bytes.len() - rest.len();
    bytes.split_at_checked(size).ok_or(Malformed)
}

/// The bytes behind the term at the beginning of these.
#[inline]
fn after(bytes: &[u8]) -> Result<&[u8], Malformed> {
    // Most keys and values have nothing inside.
    let (size, children) = extent(bytes)?;
    let rest = bytes.get(size..).ok_or(Malformed)?;
    match children {
        0 => Ok(rest),
        _ => after_all(rest, children),
    }
}

/// The bytes behind so many terms. Each takes a byte at least, whatever they say is inside of them.
fn after_all(mut rest: &[u8], mut pending: u64) -> Result<&[u8], Malformed> {
    while pending > 0 {
        let (size, children) = extent(rest)?;
        rest = rest.get(size..).ok_or(Malformed)?;
        pending = pending - 1 + children;
    }
    Ok(rest)
}

/// How many bytes a term takes by itself, and how many terms inside of it follow them.
#[inline(always)]
fn extent(bytes: &[u8]) -> Result<(usize, u64), Malformed> {
    let (&tag, body) = bytes.split_first().ok_or(Malformed)?;
    let byte = || body.first().map(|&n| usize::from(n)).ok_or(Malformed);
    let short = || Ok(usize::from(u16::from_be_bytes(*chunk(body)?)));
    let long = || Ok(u32::from_be_bytes(*chunk(body)?) as usize);
    Ok(match tag {
        SMALL_INTEGER => (2, 0),
        SMALL_ATOM_UTF8 => (2 + byte()?, 0),
        BINARY => (5 + long()?, 0),
        INTEGER => (5, 0),
        NEW_FLOAT => (9, 0),
        NIL => (1, 0),
        SMALL_BIG => (3 + byte()?, 0),
        LARGE_BIG | BIT_BINARY => (6 + long()?, 0),
        ATOM_UTF8 | STRING => (3 + short()?, 0),
        SMALL_TUPLE => (2, byte()? as u64),
        LARGE_TUPLE => (5, long()? as u64),
        LIST => (5, long()? as u64 + 1),
        MAP => (5, 2 * long()? as u64),
        _ => return Err(Malformed),
    })
}

/// As [`after`], and looks into each term.
fn checked(mut rest: &[u8]) -> Result<&[u8], Malformed> {
    let mut pending = 1_u64;
    while pending > 0 {
        let (size, children) = extent(rest)?;
        match Term(rest).kind()? {
            Kind::Atom(name) => {
                let name = std::str::from_utf8(name).map_err(|_| Malformed)?;
                if name.chars().count() > 255 {
                    return Err(Malformed);
                }
            }
            Kind::Bits => {
                let bits = rest.get(5).ok_or(Malformed)?;
                if size == 6 || !(1..=8).contains(bits) {
                    return Err(Malformed);
                }
            }
            _ => {}
        }
        rest = rest.get(size..).ok_or(Malformed)?;
        pending = pending - 1 + children;
    }
    Ok(rest)
}

fn chunk<const N: usize>(bytes: &[u8]) -> Result<&[u8; N], Malformed> {
    bytes.first_chunk().ok_or(Malformed)
}

fn first(bytes: &[u8], size: usize) -> Result<&[u8], Malformed> {
    bytes.get(..size).ok_or(Malformed)
}

/// A size of four bytes, and what follows it.
#[inline]
fn sized(body: &[u8]) -> Result<(usize, &[u8]), Malformed> {
    let (size, rest) = body.split_first_chunk().ok_or(Malformed)?;
    Ok((u32::from_be_bytes(*size) as usize, rest))
}

/// As many bytes as two bytes in front of them say.
fn short_sized(body: &[u8]) -> Result<&[u8], Malformed> {
    let (size, rest) = body.split_first_chunk().ok_or(Malformed)?;
    first(rest, u16::from_be_bytes(*size).into())
}

fn finite(float: f64) -> Result<f64, Malformed> {
    match float.is_finite() {
        true => Ok(float),
        false => Err(Malformed),
    }
}

/// The sign, and `size` bytes.
fn big(size: usize, body: &[u8]) -> Result<Kind<'_>, Malformed> {
    let (&sign, body) = body.split_first().ok_or(Malformed)?;
    let magnitude = first(body, size)?;
    let is_negative = sign != 0;
    Ok(match small(is_negative, magnitude) {
        Some(integer) => Kind::Integer(integer),
        None => Kind::Big {
            is_negative,
            magnitude,
        },
    })
}

fn small(is_negative: bool, magnitude: &[u8]) -> Option<i64> {
    let mut bytes = [0; 8];
    bytes.get_mut(..magnitude.len())?.copy_from_slice(magnitude);
    let value = i128::from(u64::from_le_bytes(bytes));
    i64::try_from(if is_negative { -value } else { value }).ok()
}

/// Encodings of terms that questions and answers consist of.
pub mod write {
    use super::{BINARY, INTEGER, LARGE_BIG, SMALL_ATOM_UTF8, SMALL_BIG, SMALL_INTEGER};

    /// An integer.
    pub fn integer(output: &mut Vec<u8>, value: i64) {
        if let Ok(byte) = u8::try_from(value) {
            output.extend([SMALL_INTEGER, byte]);
        } else if let Ok(value) = i32::try_from(value) {
            output.push(INTEGER);
            output.extend(value.to_be_bytes());
        } else {
            let bytes = value.unsigned_abs().to_le_bytes();
            let zeros = bytes.iter().rev().take_while(|byte| **byte == 0).count();
            let size = bytes.len() - zeros;
            output.extend([SMALL_BIG, size as u8, u8::from(value < 0)]);
            output.extend(bytes.iter().take(size));
        }
    }

    /// An integer of any size by its sign and its absolute value, the lowest byte first.
    pub fn big(output: &mut Vec<u8>, is_negative: bool, magnitude: &[u8]) {
        match u8::try_from(magnitude.len()) {
            Ok(size) => output.extend([SMALL_BIG, size]),
            Err(_) => {
                output.push(LARGE_BIG);
                output.extend((magnitude.len() as u32).to_be_bytes());
            }
        }
        output.push(u8::from(is_negative));
        output.extend(magnitude);
    }

    /// A binary; one that is too large for the format is cut there, and sections are not as large.
    pub fn binary(output: &mut Vec<u8>, bytes: &[u8]) {
        let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        output.push(BINARY);
        output.extend(size.to_be_bytes());
        output.extend(bytes.iter().take(size as usize));
    }

    /// An atom with a name of at most 255 bytes.
    pub fn atom(output: &mut Vec<u8>, name: &str) {
        output.extend([SMALL_ATOM_UTF8, name.len() as u8]);
        output.extend(name.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `#{a => {sum, -1}, b => [1, 2.5 | x]}`, and what is not read.
    const PAIRS: &[u8] =
        b"t\0\0\0\x02w\x01ah\x02w\x03sumb\xFF\xFF\xFF\xFFw\x01bl\0\0\0\x02\x61\x01F\
        \x40\x04\0\0\0\0\0\0w\x01xbehind";

    #[test]
    fn values_are_found_and_skipped() -> Result<(), Malformed> {
        let map = Term::new(PAIRS);
        assert_eq!(Some(map.encoded()?), PAIRS.strip_suffix(b"behind"));
        let sum = map.get(&Key::new(b"w\x01a"))?.and_then(Term::tagged_sum);
        let number = sum.map_or(Ok(None), Term::number)?;
        assert_eq!(number, Some(Number::Int(-1)));
        let Some(Kind::List(mut members)) =
            map.get(&Key::new(b"w\x01b"))?.map(Term::kind).transpose()?
        else {
            return Err(Malformed);
        };
        assert_eq!(members.behind()?.kind()?, Kind::Atom(b"x"));
        assert_eq!(
            members.next_term()?.map(Term::kind),
            Some(Ok(Kind::Integer(1)))
        );
        assert_eq!(
            members.next_term()?.map(Term::kind),
            Some(Ok(Kind::Float(2.5)))
        );
        assert!(members.next_term()?.is_none());
        assert!(map.get(&Key::new(b"w\x01c"))?.is_none());
        Ok(())
    }

    #[test]
    fn what_is_cut_off_is_malformed() {
        let whole = PAIRS.len() - 6;
        for size in 0..whole {
            let cut = PAIRS.get(..size).unwrap_or_default();
            assert_eq!(Term::new(cut).encoded(), Err(Malformed), "{size}");
        }
    }

    #[test]
    fn integers_of_all_sizes() {
        for value in [0, 255, 256, -1, 1 << 31, -(1 << 31), i64::MAX, i64::MIN] {
            let mut encoded = Vec::new();
            write::integer(&mut encoded, value);
            assert_eq!(Term::new(&encoded).kind(), Ok(Kind::Integer(value)));
        }
        let two_to_63 = b"n\x08\0\0\0\0\0\0\0\0\x80";
        assert!(matches!(Term::new(two_to_63).kind(), Ok(Kind::Big { .. })));
        let too_large = [&b"o\0\x07\xFE\xE1\0"[..], &[1; 524_001]].concat();
        assert_eq!(Term::new(&too_large).kind(), Err(Malformed));
    }

    #[test]
    fn what_claims_more_than_there_is_ends_soon() {
        let claims = [&b"\x83"[..], &b"t\xFF\xFF\xFF\xFF".repeat(1_000)].concat();
        assert!(Term::whole(&claims).is_err());
        let deep = [&b"\x83"[..], &b"l\0\0\0\x01".repeat(100_000)].concat();
        assert!(Term::whole(&deep).is_err());
    }

    #[test]
    fn well_formed_is_what_the_virtual_machine_takes() {
        for term in [
            &b"\x83M\0\0\0\x01\x09\0"[..],
            b"\x83M\0\0\0\0\x01",
            b"\x83w\x01\xFF",
            b"\x83jj",
        ] {
            assert!(Term::whole(term).is_err(), "{term:?}");
        }
        assert!(Term::whole(b"\x83M\0\0\0\x01\x08\0").is_ok());
    }
}
