//! Streams of bits, the least significant bit of the first byte first.
//!
//! ```text
//!   bytes    0                1                      last
//!          +----------------+----------------+-----+------------------+
//!   bits   | 7 6 5 4 3 2 1 0| 15 ..        8 | ... | 0 0 1 b b b b b  |
//!          +----------------+----------------+-----+------------------+
//! ```
//!
//! Most streams are read from their end: the highest bit of the last byte that is set says where that is, and
//! what was written last is read first (RFC 8878, section 4.1).

/// Writes bits to the front of a slice.
pub(super) struct Writer<'a> {
    output: &'a mut [u8],
    at: usize,
    bits: u64,
    held: u32,
}

impl<'a> Writer<'a> {
    pub(super) fn new(output: &'a mut [u8]) -> Self {
        Self {
            output,
            at: 0,
            bits: 0,
            held: 0,
        }
    }

    /// Adds the low `count` bits of `value`, which has no others. At most 56 bits fit between two calls of
    /// [`flush`](Self::flush).
    #[inline(always)]
    pub(super) fn add(&mut self, value: u32, count: u32) {
        debug_assert!(u64::from(value) >> count == 0 && self.held + count <= 63);
        self.bits |= u64::from(value) << (self.held & 63);
        self.held += count;
    }

    /// Writes out all whole bytes. What finds no room is counted and lost, and then there is no end.
    #[inline(always)]
    pub(super) fn flush(&mut self) {
        let room = self.output.get_mut(self.at..);
        if let Some(bytes) = room.and_then(<[u8]>::first_chunk_mut) {
            *bytes = self.bits.to_le_bytes();
        }
        self.at += (self.held >> 3) as usize;
        self.bits >>= self.held & 56;
        self.held &= 7;
    }

    /// The size of the stream, filled up with zeros to a whole byte; `None` where there was not room for
    /// eight bytes more.
    pub(super) fn end(mut self) -> Option<usize> {
        self.held += 7;
        self.flush();
        (self.at + 8 <= self.output.len()).then_some(self.at)
    }

    /// The same for a stream that is read from its end.
    pub(super) fn end_backward(mut self) -> Option<usize> {
        self.add(1, 1);
        self.end()
    }
}
