//! Packed segments: many events in one binary, read where they lie (`doc/format.md`).
//!
//! Nothing in it is believed. The header is checked when a segment is opened, a section when a question first
//! comes to it: its checksum, then its sizes and offsets.

mod columns;
mod path;
mod write;

use crate::archive::{
    self,
    dictionary::{self, Dictionary},
    zstd,
};
use crate::hash;
use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

pub use columns::{Cell, Contents, Events, Names};
pub use path::{Fields, Path, Paths, Value, columns, found};
pub use write::{Part, joined};

const MAGIC: &[u8; 4] = b"ESDS";
const FORMAT: u8 = 1;
const HEADER: usize = 16;
const ENTRY: usize = 40;
const CHECKSUM: usize = 8;

/// Of the integer columns: the event has none.
pub const NONE: i64 = i64::MIN;

/// Bounds on what a segment may say of itself: its sections together, once decompressed, and its events.
pub const MAX_SIZE: u64 = 1 << 30;
/// See [`MAX_SIZE`].
pub const MAX_COUNT: usize = 1 << 24;

/// A section; its number is its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names of the format")]
pub enum Section {
    Versions = 1,
    Positions,
    EpochUs,
    EventIds,
    Types,
    Streams,
    Data,
    Metadata,
    Others,
}

impl Section {
    /// All of them, in the order of their ids.
    pub const ALL: [Self; 9] = [
        Self::Versions,
        Self::Positions,
        Self::EpochUs,
        Self::EventIds,
        Self::Types,
        Self::Streams,
        Self::Data,
        Self::Metadata,
        Self::Others,
    ];

    fn index(self) -> usize {
        self as usize - 1
    }
}

/// Why a segment cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Its first bytes are none of a segment, or contradict each other.
    CorruptHeader,
    /// This section is not what was written, or breaks its format.
    Corrupt(Section),
    /// It is of a later version of the format.
    UnsupportedVersion(u8),
    /// What the decompression of a section says, other than that it is corrupt.
    Archive(archive::Error),
    /// More events or bytes than a segment may have.
    TooLarge,
}

/// Some of the sections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sections(u16);

impl Sections {
    /// All of them.
    pub const ALL: Self = Self(0x1FF);

    /// These and one more.
    #[must_use]
    pub fn with(self, section: Section) -> Self {
        Self(self.0 | 1 << section.index())
    }

    /// These and those.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether a section is among them.
    #[must_use]
    pub fn contains(self, section: Section) -> bool {
        self.0 & 1 << section.index() != 0
    }
}

/// How the bytes of a section are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names of the format")]
pub enum Codec {
    Stored = 0,
    Zstd = 1,
}

#[derive(Clone, Copy)]
struct Entry<'a> {
    codec: Codec,
    stored: &'a [u8],
    size: u64,
    checksum: u64,
}

type Prepared = OnceLock<Result<Arc<Dictionary>, archive::Error>>;

/// The bytes of a dictionary, which are prepared when a section first needs them, and once for all segments that
/// are asked with it. That they are no dictionary is also told then.
pub struct Lazy<'a> {
    bytes: &'a [u8],
    to_decompress: Prepared,
    to_compress: Prepared,
}

impl<'a> Lazy<'a> {
    /// Nothing is looked at yet.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            to_decompress: Prepared::new(),
            to_compress: Prepared::new(),
        }
    }

    fn to_decompress(&self) -> Result<&Dictionary, archive::Error> {
        let make = || dictionary::to_decompress(self.bytes);
        prepared(self.to_decompress.get_or_init(make))
    }

    /// At the default level.
    fn to_compress(&self) -> Result<&Dictionary, archive::Error> {
        let make =
            || dictionary::prepared(self.bytes, zstd::DEFAULT_LEVEL).map(|made| made.dictionary);
        prepared(self.to_compress.get_or_init(make))
    }
}

fn prepared(made: &Result<Arc<Dictionary>, archive::Error>) -> Result<&Dictionary, archive::Error> {
    made.as_deref().map_err(|error| *error)
}

/// The dictionary that a segment is asked with, if there is one.
pub type Given<'a> = Option<&'a Lazy<'a>>;

/// A segment whose header is right.
pub struct Segment<'a> {
    count: usize,
    size: usize,
    entries: [Option<Entry<'a>>; 9],
    dictionary: Given<'a>,
}

impl<'a> Segment<'a> {
    /// Reads the header, and nothing else.
    ///
    /// # Errors
    /// [`Error::CorruptHeader`], [`Error::UnsupportedVersion`].
    pub fn open(bytes: &'a [u8], dictionary: Given<'a>) -> Result<Self, Error> {
        if let Some(&version) = bytes.strip_prefix(MAGIC).and_then(<[u8]>::first) {
            if version != FORMAT {
                return Err(Error::UnsupportedVersion(version));
            }
        }
        let header = bytes.first_chunk::<HEADER>().ok_or(Error::CorruptHeader)?;
        let &[
            m0,
            m1,
            m2,
            m3,
            _,
            flags,
            s0,
            s1,
            c0,
            c1,
            c2,
            c3,
            reserved @ ..,
        ] = header;
        let sections = usize::from(u16::from_le_bytes([s0, s1]));
        let count = u32::from_le_bytes([c0, c1, c2, c3]) as usize;
        let is_right = &[m0, m1, m2, m3] == MAGIC
            && (flags, reserved) == (0, [0; 4])
            && sections <= Section::ALL.len()
            && count <= MAX_COUNT
            // Some bytes there must be to vouch for the number of events.
            && (count == 0 || sections > 0);
        if !is_right {
            return Err(Error::CorruptHeader);
        }
        let end = HEADER + sections * ENTRY;
        let (head, rest) = bytes.split_at_checked(end).ok_or(Error::CorruptHeader)?;
        let (sum, content) = rest
            .split_first_chunk::<CHECKSUM>()
            .ok_or(Error::CorruptHeader)?;
        if u64::from_le_bytes(*sum) != hash::xxhash3(head) {
            return Err(Error::CorruptHeader);
        }
        let table = head.get(HEADER..).ok_or(Error::CorruptHeader)?;
        Ok(Self {
            count,
            size: bytes.len(),
            entries: entries(table, end + CHECKSUM, content).ok_or(Error::CorruptHeader)?,
            dictionary,
        })
    }

    /// How many events it holds.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// How many bytes it takes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// How many bytes it takes once all of it is decompressed, as it says.
    #[must_use]
    pub fn unpacked_size(&self) -> u64 {
        let sizes = Section::ALL.map(|section| self.section_size(section));
        sizes.into_iter().sum()
    }

    /// How many bytes a section takes once it is decompressed, as it says, 0 without it.
    #[must_use]
    pub fn section_size(&self, section: Section) -> u64 {
        self.entry(section).map_or(0, |entry| entry.size)
    }

    /// How a section is stored, if there is one.
    #[must_use]
    pub fn codec(&self, section: Section) -> Option<Codec> {
        self.entry(section).map(|entry| entry.codec)
    }

    /// The sections that are compressed.
    #[must_use]
    pub fn compressed(&self) -> Sections {
        let is_compressed = |section: &Section| self.codec(*section) == Some(Codec::Zstd);
        let sections = Section::ALL.into_iter().filter(is_compressed);
        sections.fold(Sections::default(), Sections::with)
    }

    fn entry(&self, section: Section) -> Option<&Entry<'a>> {
        self.entries.get(section.index())?.as_ref()
    }

    /// The checked bytes of a section, decompressed; none where no event has it.
    fn content(&self, section: Section) -> Result<Option<Cow<'a, [u8]>>, Error> {
        let Some(entry) = self.entry(section) else {
            return Ok(None);
        };
        if hash::xxhash3(entry.stored) != entry.checksum {
            return Err(Error::Corrupt(section));
        }
        match entry.codec {
            Codec::Stored => Ok(Some(Cow::Borrowed(entry.stored))),
            Codec::Zstd => match self.decompressed(entry) {
                Ok(content) => Ok(Some(Cow::Owned(content))),
                Err(error) => Err(of_section(error, section)),
            },
        }
    }

    fn decompressed(&self, entry: &Entry) -> Result<Vec<u8>, archive::Error> {
        let dictionary = self.dictionary.map(Lazy::to_decompress).transpose()?;
        let plan = zstd::plan(entry.stored, entry.size, dictionary)?;
        let mut content = Vec::new();
        let size = zstd::decompress(entry.stored, &mut content, plan, entry.size, dictionary)?;
        content.truncate(size);
        match size as u64 == entry.size {
            true => Ok(content),
            false => Err(archive::Error::Corrupt),
        }
    }
}

/// Only what somebody can do something about is told apart: give the right dictionary, more memory.
fn of_section(error: archive::Error, section: Section) -> Error {
    match error {
        archive::Error::DictionaryMismatch(_) | archive::Error::NoMemory => Error::Archive(error),
        _ => Error::Corrupt(section),
    }
}

/// The table: ascending ids, sections back to back and nothing behind them.
fn entries<'a>(
    table: &[u8],
    start: usize,
    mut content: &'a [u8],
) -> Option<[Option<Entry<'a>>; 9]> {
    let mut entries = [None; 9];
    let (mut offset, mut last, mut sum) = (start as u64, 0, 0_u64);
    for entry in table.chunks_exact(ENTRY) {
        let (&[id, codec, r0, r1, r2, r3, r4, r5], numbers) = entry.split_first_chunk()?;
        let [at, stored_size, size, checksum] = words(numbers)?;
        let codec = match codec {
            0 => Codec::Stored,
            1 => Codec::Zstd,
            _ => return None,
        };
        sum = sum.checked_add(size)?;
        let is_right = [r0, r1, r2, r3, r4, r5] == [0; 6]
            && id > last
            && sum <= MAX_SIZE
            && at == offset
            && (codec == Codec::Zstd || size == stored_size);
        if !is_right {
            return None;
        }
        let (stored, rest) = content.split_at_checked(usize::try_from(stored_size).ok()?)?;
        *entries.get_mut(usize::from(id) - 1)? = Some(Entry {
            codec,
            stored,
            size,
            checksum,
        });
        (content, offset, last) = (rest, offset + stored_size, id);
    }
    content.is_empty().then_some(entries)
}

fn words<const N: usize>(bytes: &[u8]) -> Option<[u64; N]> {
    let mut words = [0; N];
    let mut chunks = bytes.chunks_exact(8);
    for word in &mut words {
        *word = u64::from_le_bytes(*chunks.next()?.first_chunk()?);
    }
    Some(words)
}
