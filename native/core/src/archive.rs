//! Compression: LZ4 blocks behind their size, and Zstandard frames.
//!
//! Nothing that an input states about itself is believed: sizes are checked against the caller's limit and
//! against what the input can hold at most before memory is reserved for them.

pub mod dictionary;
pub mod frame;
pub mod lz4;
pub mod zstd;

/// Why data could not be compressed or decompressed; the Erlang side has the same set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The input ends before its format does.
    Truncated,
    /// The input breaks its format, or something follows its end.
    Corrupt,
    /// The content is complete but is not what was compressed.
    ChecksumMismatch,
    /// The content would be larger than this limit.
    TooLarge(u64),
    /// The frame asks for a window of that many bytes, more than [`frame::MAX_WINDOW`].
    WindowTooLarge(u64),
    /// The frame was compressed with the dictionary of this id, which is not the one given.
    DictionaryMismatch(u32),
    /// The dictionary is empty, or has the header of a trained one and breaks its format.
    InvalidDictionary,
    /// There is not enough memory for the result.
    NoMemory,
}
