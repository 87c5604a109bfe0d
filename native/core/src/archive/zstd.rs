//! Zstandard frames (RFC 8878) by libzstd, with contexts that each thread keeps; but [`tiny`] inputs are compressed
//! by code of our own at the default level.

pub mod tiny;

use super::{Error, dictionary::Dictionary, frame};
use std::cell::RefCell;
use zstd_safe::{
    CCtx, CParameter, DCtx, DParameter, InBuffer, OutBuffer, ResetDirective, SafeResult,
};

pub use frame::Plan;

/// The level where none is given.
pub const DEFAULT_LEVEL: i32 = 3;

/// A thread gives a compression context back that has grown above this (high levels on large data need
/// hundreds of megabytes).
const KEPT_CONTEXT: usize = 16 << 20;

/// `-ZSTD_error_*` of zstd_errors.h, whose numbers are stable.
const MEMORY_ALLOCATION: usize = 64_usize.wrapping_neg();
const CHECKSUM_WRONG: usize = 22_usize.wrapping_neg();

/// Windows are limited by the walk: a frame in one segment has one as large as its content.
const WINDOW_LOG_MAX: u32 = 31;

/// The room that content is given at first, in bytes and as a multiple of the input, and how it grows: sizes that
/// frames state, or could have, may be lies.
const FIRST_ROOM: usize = 128 << 10;
const USUAL_RATIO: usize = 16;
const GROWTH: usize = 4;

thread_local! {
    static COMPRESS: RefCell<Option<CCtx<'static>>> = const { RefCell::new(None) };
    static DECOMPRESS: RefCell<Option<DCtx<'static>>> = const { RefCell::new(None) };
    static STREAM: RefCell<Option<Stream>> = const { RefCell::new(None) };
}

/// The largest output that an input of this size can have.
#[must_use]
pub fn compress_bound(size: usize) -> usize {
    zstd_safe::compress_bound(size)
}

/// Compresses into one frame with its content size, and returns how many bytes of `output`, which has at
/// least [`compress_bound`], it wrote.
///
/// # Errors
/// [`Error::InvalidDictionary`], [`Error::NoMemory`].
pub fn compress(
    input: &[u8],
    output: &mut [u8],
    level: i32,
    checksum: bool,
    dictionary: Option<&Dictionary>,
) -> Result<usize, Error> {
    let prepared = dictionary
        .map(|dictionary| dictionary.for_compression(level))
        .transpose()?;
    let prepared = prepared.as_deref();
    if level == DEFAULT_LEVEL && prepared.is_none() {
        if let Some(written) = tiny::compress(input, output, checksum) {
            return Ok(written);
        }
    }
    COMPRESS.with_borrow_mut(|slot| {
        let mut context = match slot.take() {
            Some(context) => context,
            None => CCtx::try_create().ok_or(Error::NoMemory)?,
        };
        let mut run = |context: &mut CCtx<'static>| -> SafeResult {
            context.set_parameter(CParameter::CompressionLevel(level))?;
            context.set_parameter(CParameter::ChecksumFlag(checksum))?;
            if let Some(prepared) = prepared {
                context.ref_cdict(prepared)?;
            }
            context.compress2(output, input)
        };
        let written = run(&mut context).map_err(|_| Error::NoMemory)?;
        // The context must not outlive its dictionary: where it cannot let go of it, it goes itself.
        let is_free = prepared.is_none() || context.disable_dictionary().is_ok();
        if is_free && context.sizeof() <= KEPT_CONTEXT {
            *slot = Some(context);
        }
        Ok(written)
    })
}

/// What the input needs: see [`frame::plan`].
///
/// # Errors
/// The reason why the input cannot be read within `max_size`.
pub fn plan(input: &[u8], max_size: u64, dictionary: Option<&Dictionary>) -> Result<Plan, Error> {
    frame::plan(input, max_size, dictionary.map_or(0, Dictionary::id))
}

/// Where content goes.
pub trait Output {
    /// Room for `size` bytes, with those in front that were written before.
    ///
    /// # Errors
    /// [`Error::NoMemory`].
    fn room(&mut self, size: usize) -> Result<&mut [u8], Error>;
}

/// As much room as there is.
impl Output for [u8] {
    fn room(&mut self, size: usize) -> Result<&mut [u8], Error> {
        self.get_mut(..size).ok_or(Error::NoMemory)
    }
}

/// As much room as there is memory.
impl Output for Vec<u8> {
    fn room(&mut self, size: usize) -> Result<&mut [u8], Error> {
        self.try_reserve_exact(size.saturating_sub(self.len()))
            .map_err(|_| Error::NoMemory)?;
        self.resize(size, 0);
        Ok(self)
    }
}

/// Decompresses all frames, which were planned with the same limit, and returns the size of the content.
///
/// Blocks are judged in their order: the first one that is corrupt, or that takes the content above `max_size`,
/// decides about the error. A checksum is judged after the size of its frame's content.
///
/// # Errors
/// [`Error::Corrupt`], [`Error::ChecksumMismatch`], [`Error::TooLarge`], [`Error::NoMemory`].
pub fn decompress(
    input: &[u8],
    output: &mut (impl Output + ?Sized),
    plan: Plan,
    max_size: u64,
    dictionary: Option<&Dictionary>,
) -> Result<usize, Error> {
    let written = if plan.is_short && plan.most <= max_size {
        let size = usize::try_from(plan.most).map_err(|_| Error::NoMemory)?;
        decompress_short(input, output.room(size)?, dictionary)?
    } else {
        decompress_long(input, output, plan, max_size, dictionary)?
    };
    if plan.least <= written as u64 && written as u64 <= plan.most {
        Ok(written)
    } else {
        Err(Error::Corrupt)
    }
}

/// In one call of libzstd, with a context that the thread keeps.
///
/// It asks less of more than one block: neither whether each is within its limit, nor whether matches reach
/// further back than its buffer for a stream does. So one block it is.
fn decompress_short(
    input: &[u8],
    output: &mut [u8],
    dictionary: Option<&Dictionary>,
) -> Result<usize, Error> {
    DECOMPRESS.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = DCtx::try_create();
        }
        let context = slot.as_mut().ok_or(Error::NoMemory)?;
        match dictionary {
            Some(dictionary) => {
                context.decompress_using_ddict(output, input, dictionary.for_decompression())
            }
            None => context.decompress(output, input),
        }
        .map_err(reason)
    })
}

/// Frame by frame and block by block.
fn decompress_long(
    input: &[u8],
    output: &mut (impl Output + ?Sized),
    plan: Plan,
    max_size: u64,
    dictionary: Option<&Dictionary>,
) -> Result<usize, Error> {
    let mut stream = match Stream::taken(&plan) {
        Some(stream) => stream,
        None => Stream::new()?,
    };
    stream.prepare(&plan, dictionary).map_err(reason)?;
    let limit = usize::try_from(plan.most.min(max_size)).unwrap_or(usize::MAX);
    let decoder = Decoder {
        context: &mut stream.context,
        output,
        max_size,
        is_stepwise: plan.most > max_size,
        room: limit.min(FIRST_ROOM.max(input.len().saturating_mul(USUAL_RATIO))),
        limit,
        size: 0,
    };
    let size = decoder.decompress(input)?;
    stream.keep();
    Ok(size)
}

fn reason(code: usize) -> Error {
    match code {
        CHECKSUM_WRONG => Error::ChecksumMismatch,
        MEMORY_ALLOCATION => Error::NoMemory,
        _ => Error::Corrupt,
    }
}

/// A context for decompression as a stream, whose buffer is kept with it.
struct Stream {
    context: DCtx<'static>,
    /// The largest window that it has had to keep.
    window: u64,
}

impl Stream {
    fn new() -> Result<Self, Error> {
        let context = DCtx::try_create().ok_or(Error::NoMemory)?;
        Ok(Self { context, window: 0 })
    }

    /// Takes the one that the thread keeps, where its buffer may be larger than that of a new one and it makes
    /// no difference: only as long as nothing falls out of a buffer are all of them the same.
    fn taken(plan: &Plan) -> Option<Self> {
        let kept = STREAM.take()?;
        let window = plan.window?;
        (plan.most <= window || kept.window <= window).then_some(kept)
    }

    fn prepare(&mut self, plan: &Plan, dictionary: Option<&Dictionary>) -> SafeResult {
        self.window = self.window.max(plan.window.unwrap_or(u64::MAX));
        let limit = DParameter::WindowLogMax(WINDOW_LOG_MAX);
        self.context.set_parameter(limit)?;
        match dictionary {
            Some(dictionary) => self.context.ref_ddict(dictionary.for_decompression()),
            None => Ok(0),
        }
    }

    /// Leaves it to the thread, unless it is large, or does not let go of its dictionary.
    fn keep(mut self) {
        let freed = self.context.reset(ResetDirective::SessionAndParameters);
        if freed.is_ok() && self.context.sizeof() <= KEPT_CONTEXT {
            STREAM.set(Some(self));
        }
    }
}

/// Decompresses as OTP's `zstd` does it for the Erlang twin (`esdb_zstd_otp_erl`): as a stream, with the header of
/// each frame given by itself, so that libzstd does not take its short cut for frames that it has as a whole. So
/// both do the same with whatever frames they are given.
struct Decoder<'a, O: ?Sized> {
    context: &'a mut DCtx<'static>,
    output: &'a mut O,
    max_size: u64,
    /// Each block is given by itself, because it may take the content above `max_size`.
    is_stepwise: bool,
    /// How much room there is, and can be.
    room: usize,
    limit: usize,
    /// The content so far, of which what is above the limit has not been kept.
    size: u64,
}

impl<O: Output + ?Sized> Decoder<'_, O> {
    fn decompress(mut self, input: &[u8]) -> Result<usize, Error> {
        for frame in frame::frames(input) {
            let end = frame.content_size.map(|size| self.size + size);
            self.take(frame.header)?;
            if self.is_stepwise {
                for block in frame::each_block(frame.blocks) {
                    self.take(block)?;
                    self.judge(end)?;
                }
            } else {
                self.take(frame.blocks)?;
            }
            if end.is_some_and(|end| self.size != end) {
                return Err(Error::Corrupt);
            }
            self.take(frame.checksum)?;
        }
        usize::try_from(self.size).map_err(|_| Error::Corrupt)
    }

    fn judge(&self, end: Option<u64>) -> Result<(), Error> {
        if end.is_some_and(|end| self.size > end) {
            Err(Error::Corrupt)
        } else if self.size > self.max_size {
            Err(Error::TooLarge(self.max_size))
        } else {
            Ok(())
        }
    }

    /// Takes this much input, and all that comes of it.
    fn take(&mut self, input: &[u8]) -> Result<(), Error> {
        let mut source = InBuffer::around(input);
        let mut is_full = !input.is_empty();
        while is_full || source.pos < input.len() {
            is_full = self.step(&mut source)?;
        }
        Ok(())
    }

    /// Whether all room was needed, so that there may be more without more input.
    fn step(&mut self, source: &mut InBuffer) -> Result<bool, Error> {
        let mut beyond = [0; 1024];
        let used = usize::try_from(self.size).unwrap_or(usize::MAX);
        if used == self.room && self.room < self.limit {
            self.room = self.limit.min(self.room.saturating_mul(GROWTH));
        }
        let is_beyond = used >= self.limit;
        let room = match is_beyond {
            true => &mut beyond[..],
            false => self
                .output
                .room(self.room)?
                .get_mut(used..)
                .ok_or(Error::NoMemory)?,
        };
        let capacity = room.len();
        let mut target = OutBuffer::around(room);
        self.context
            .decompress_stream(&mut target, source)
            .map_err(reason)?;
        let written = target.pos();
        self.size += written as u64;
        if is_beyond && written > 0 && !self.is_stepwise {
            return Err(Error::Corrupt);
        }
        Ok(written == capacity)
    }
}
