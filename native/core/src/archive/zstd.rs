//! Zstandard frames (RFC 8878) by libzstd, with contexts that each thread keeps; but [`tiny`] inputs are compressed
//! by code of our own at the default level.

pub mod tiny;

use super::{Error, dictionary::Dictionary, frame};
use std::cell::RefCell;
use zstd_safe::{CCtx, CParameter, DCtx, SafeResult};

pub use frame::Plan;

/// The level where none is given.
pub const DEFAULT_LEVEL: i32 = 3;

/// A thread gives a compression context back that has grown above this (high levels on large data need
/// hundreds of megabytes).
const KEPT_CONTEXT: usize = 16 << 20;

/// `-ZSTD_error_*` of zstd_errors.h, whose numbers are stable.
const MEMORY_ALLOCATION: usize = 64_usize.wrapping_neg();
const CHECKSUM_WRONG: usize = 22_usize.wrapping_neg();
const DESTINATION_TOO_SMALL: usize = 70_usize.wrapping_neg();

thread_local! {
    static COMPRESS: RefCell<Option<CCtx<'static>>> = const { RefCell::new(None) };
    static DECOMPRESS: RefCell<Option<DCtx<'static>>> = const { RefCell::new(None) };
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

/// Decompresses all frames into `output`, which has the smaller of `plan.most` and `max_size` bytes. Returns the
/// size of the content, which the plan allows.
///
/// # Errors
/// [`Error::Corrupt`], [`Error::ChecksumMismatch`], [`Error::TooLarge`], [`Error::NoMemory`].
pub fn decompress(
    input: &[u8],
    output: &mut [u8],
    plan: Plan,
    max_size: u64,
    dictionary: Option<&Dictionary>,
) -> Result<usize, Error> {
    DECOMPRESS.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = DCtx::try_create();
        }
        let context = slot.as_mut().ok_or(Error::NoMemory)?;
        let result = match dictionary {
            Some(dictionary) => {
                context.decompress_using_ddict(output, input, dictionary.for_decompression())
            }
            None => context.decompress(output, input),
        };
        let written = result.map_err(|code| match code {
            CHECKSUM_WRONG => Error::ChecksumMismatch,
            MEMORY_ALLOCATION => Error::NoMemory,
            DESTINATION_TOO_SMALL if plan.most > max_size => Error::TooLarge(max_size),
            _ => Error::Corrupt,
        })?;
        if plan.least <= written as u64 && written as u64 <= plan.most {
            Ok(written)
        } else {
            Err(Error::Corrupt)
        }
    })
}
