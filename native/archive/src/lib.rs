//! NIFs of the Erlang module `esdb_archive_nif`: terms in, `esdb_core::archive`, terms out.
//!
//! The Erlang side has checked types, options and limits, and chosen between a normal scheduler (`_n`) and
//! a dirty one (`_d`).

mod terms;

use esdb_core::archive::{Error, dictionary, lz4, zstd};
use rustler::{
    Atom, Binary, Encoder, Env, ListIterator, NifResult, Resource, ResourceArc, Term, nif,
};
use std::sync::Arc;
use terms::{DictionaryArg, Fail, Found};

/// A dictionary prepared for use, kept by its handle.
struct Kept(Arc<dictionary::Dictionary>);

#[rustler::resource_impl]
impl Resource for Kept {}

#[nif]
fn implementation() -> Atom {
    esdb_boundary::implementation()
}

#[nif]
fn lz4_compress_n<'a>(env: Env<'a>, data: Binary) -> Result<Found<'a>, Fail> {
    terms::charge(env, data.len());
    lz4_compress(env, &data)
}

#[nif(schedule = "DirtyCpu", name = "lz4_compress_d")]
fn lz4_compress_dirty<'a>(env: Env<'a>, data: Binary) -> Result<Found<'a>, Fail> {
    lz4_compress(env, &data)
}

fn lz4_compress<'a>(env: Env<'a>, data: &[u8]) -> Result<Found<'a>, Fail> {
    if data.len() > lz4::MAX_INPUT {
        return Err(Error::TooLarge(lz4::MAX_INPUT as u64).into());
    }
    terms::at_most(env, lz4::compress_bound(data.len()), |output| {
        lz4::compress(data, output)
    })
}

#[nif]
fn lz4_decompress_n<'a>(env: Env<'a>, data: Binary, max_size: u64) -> Result<Found<'a>, Fail> {
    let size = lz4::content_size(&data, max_size)?;
    terms::charge(env, size);
    lz4_decompress(env, &data, size)
}

#[nif(schedule = "DirtyCpu", name = "lz4_decompress_d")]
fn lz4_decompress_dirty<'a>(env: Env<'a>, data: Binary, max_size: u64) -> Result<Found<'a>, Fail> {
    let size = lz4::content_size(&data, max_size)?;
    lz4_decompress(env, &data, size)
}

fn lz4_decompress<'a>(env: Env<'a>, data: &[u8], size: usize) -> Result<Found<'a>, Fail> {
    terms::exactly(env, size, |output| {
        lz4::decompress(data, output).map(|()| size)
    })
}

#[nif]
fn zstd_compress_n<'a>(
    env: Env<'a>,
    data: Binary,
    level: i32,
    checksum: bool,
    dictionary: DictionaryArg,
) -> Result<Found<'a>, Fail> {
    terms::charge(env, data.len());
    zstd_compress(env, &data, level, checksum, &dictionary)
}

#[nif(schedule = "DirtyCpu", name = "zstd_compress_d")]
fn zstd_compress_dirty<'a>(
    env: Env<'a>,
    data: Binary,
    level: i32,
    checksum: bool,
    dictionary: DictionaryArg,
) -> Result<Found<'a>, Fail> {
    zstd_compress(env, &data, level, checksum, &dictionary)
}

fn zstd_compress<'a>(
    env: Env<'a>,
    data: &[u8],
    level: i32,
    checksum: bool,
    dictionary: &DictionaryArg,
) -> Result<Found<'a>, Fail> {
    let dictionary = dictionary.prepared(env, level)?;
    terms::at_most(env, zstd::compress_bound(data.len()), |output| {
        zstd::compress(data, output, level, checksum, dictionary.as_deref())
    })
}

/// Short work only: content that may be larger than `short` bytes is left for a dirty scheduler.
#[nif]
fn zstd_decompress_n<'a>(
    env: Env<'a>,
    data: Binary,
    max_size: u64,
    dictionary: DictionaryArg,
    short: u64,
) -> Result<Found<'a>, Fail> {
    let dictionary = dictionary.prepared(env, zstd::DEFAULT_LEVEL)?;
    let plan = zstd::plan(&data, max_size, dictionary.as_deref())?;
    if plan.most > short {
        return Ok(Found::Long);
    }
    terms::charge(env, usize::try_from(plan.most).unwrap_or(usize::MAX));
    zstd_decompress(env, &data, max_size, plan, dictionary.as_deref())
}

#[nif(schedule = "DirtyCpu", name = "zstd_decompress_d")]
fn zstd_decompress_dirty<'a>(
    env: Env<'a>,
    data: Binary,
    max_size: u64,
    dictionary: DictionaryArg,
) -> Result<Found<'a>, Fail> {
    let dictionary = dictionary.prepared(env, zstd::DEFAULT_LEVEL)?;
    let plan = zstd::plan(&data, max_size, dictionary.as_deref())?;
    zstd_decompress(env, &data, max_size, plan, dictionary.as_deref())
}

fn zstd_decompress<'a>(
    env: Env<'a>,
    data: &[u8],
    max_size: u64,
    plan: zstd::Plan,
    dictionary: Option<&dictionary::Dictionary>,
) -> Result<Found<'a>, Fail> {
    if plan.most <= max_size && plan.most <= terms::SMALL as u64 {
        let size = plan.most as usize;
        let decompress =
            |output: &mut [u8]| zstd::decompress(data, output, plan, max_size, dictionary);
        // A frame that holds another amount than it states is corrupt, so the size is exact.
        return match plan.least == plan.most {
            true => terms::exactly(env, size, decompress),
            false => terms::at_most(env, size, decompress),
        };
    }
    terms::growing(env, |output| {
        zstd::decompress(data, output, plan, max_size, dictionary)
    })
}

/// The bytes and the reference of a handle. The bytes are those that the dictionary keeps, so that they need
/// not be compared with it later.
#[nif(schedule = "DirtyCpu", name = "prepare_dictionary_d")]
fn prepare_dictionary<'a>(env: Env<'a>, bytes: Binary) -> Result<Term<'a>, Fail> {
    let prepared = dictionary::Dictionary::new(&bytes, zstd::DEFAULT_LEVEL)?;
    let kept = ResourceArc::new(Kept(Arc::new(prepared)));
    let own = kept.make_binary(env, |kept| kept.0.bytes());
    Ok((own, kept).encode(env))
}

#[nif(schedule = "DirtyCpu", name = "train_dictionary_d")]
fn train_dictionary<'a>(
    env: Env<'a>,
    samples: Term<'a>,
    size: usize,
) -> NifResult<Result<Found<'a>, Fail>> {
    let (mut bytes, mut count) = (0, 0);
    for sample in samples.decode::<ListIterator>()? {
        bytes += sample.decode::<Binary>()?.len();
        count += 1;
    }
    let mut joined = match dictionary::Samples::with_capacity(bytes, count) {
        Ok(joined) => joined,
        Err(error) => return Ok(Err(error.into())),
    };
    for sample in samples.decode::<ListIterator>()? {
        let pushed = joined.push(&sample.decode::<Binary>()?);
        if let Err(error) = pushed {
            return Ok(Err(error.into()));
        }
    }
    let trained = joined.train(size).map_err(Fail::from);
    Ok(trained.and_then(|bytes| terms::copy(env, &bytes)))
}

fn load(_env: Env, info: Term) -> bool {
    esdb_boundary::same_version(info)
}

rustler::init!("esdb_archive_nif", load = load);
