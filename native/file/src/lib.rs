//! NIFs of the Erlang module `esdb_file_nif`: terms in, `esdb_core::ranges`, terms out.
//!
//! The Erlang wrappers have checked the arguments: names have no zero bytes, and the ranges are few enough and end
//! before the largest offset. A file may make its reader wait, so all of this runs on the schedulers for input and
//! output.

use std::fs::{self, File};
use std::io;
use std::sync::{Mutex, PoisonError};

use esdb_core::ranges::{self, Range};
use rustler::{
    Atom, Binary, Encoder, Env, LocalPid, NewBinary, NifResult, Resource, ResourceArc, Term, nif,
};

mod atoms {
    rustler::atoms! {
        ok, error, not_on_controlling_process,
        eacces, ebadf, eintr, einval, eio, eisdir, eloop, emfile, enametoolong, enfile, enodev, enoent, enomem,
        enotdir, enxio, eoverflow, eperm, estale, etimedout
    }
}

#[nif]
fn implementation() -> Atom {
    esdb_boundary::implementation()
}

/// An open file, and the process that opened it. Nobody else reads from it: that is the rule for files of OTP too.
struct Opened {
    owner: LocalPid,
    file: Mutex<Option<File>>,
}

#[rustler::resource_impl]
impl Resource for Opened {}

#[nif(schedule = "DirtyIo")]
fn open_d<'a>(env: Env<'a>, name: Binary) -> Term<'a> {
    match opened(&name) {
        Ok(file) => {
            let handle = ResourceArc::new(Opened {
                owner: env.pid(),
                file: Mutex::new(Some(file)),
            });
            (atoms::ok(), handle).encode(env)
        }
        Err(error) => failed(env, reason(&error)),
    }
}

/// Only files that can be read anywhere: to open a pipe would wait until somebody writes into it.
fn opened(name: &[u8]) -> io::Result<File> {
    let path = path(name)?;
    let kind = fs::metadata(&path)?.file_type();
    if kind.is_dir() {
        return Err(io::Error::from_raw_os_error(libc::EISDIR));
    }
    if !kind.is_file() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    File::open(path)
}

#[cfg(unix)]
fn path(name: &[u8]) -> io::Result<std::path::PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    Ok(std::ffi::OsStr::from_bytes(name).into())
}

#[cfg(windows)]
fn path(name: &[u8]) -> io::Result<std::path::PathBuf> {
    let name = std::str::from_utf8(name).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    Ok(name.into())
}

#[nif(schedule = "DirtyIo")]
fn read_d<'a>(
    env: Env<'a>,
    handle: ResourceArc<Opened>,
    ranges: Vec<(u64, usize)>,
) -> NifResult<Term<'a>> {
    Ok(with_file(env, &handle, |file| match file {
        Some(file) => read_all(env, file, &ranges),
        None => failed(env, atoms::einval()),
    }))
}

#[nif(schedule = "DirtyIo")]
fn close_d<'a>(env: Env<'a>, handle: ResourceArc<Opened>) -> Term<'a> {
    with_file(env, &handle, |file| match file.take() {
        Some(_) => atoms::ok().encode(env),
        None => failed(env, atoms::einval()),
    })
}

fn with_file<'a>(
    env: Env<'a>,
    handle: &Opened,
    ask: impl FnOnce(&mut Option<File>) -> Term<'a>,
) -> Term<'a> {
    if handle.owner != env.pid() {
        return failed(env, atoms::not_on_controlling_process());
    }
    // A file that somebody left in the middle of a read is as good as before.
    ask(&mut handle.file.lock().unwrap_or_else(PoisonError::into_inner))
}

fn read_all<'a>(env: Env<'a>, file: &File, wanted: &[(u64, usize)]) -> Term<'a> {
    let ranges: Vec<Range> = wanted
        .iter()
        .map(|&(offset, length)| Range { offset, length })
        .collect();
    let mut found: Vec<Option<Term>> = vec![None; ranges.len()];
    let take = |number: usize, bytes: &[u8]| {
        if let Some(place) = found.get_mut(number) {
            let mut binary = NewBinary::new(env, bytes.len());
            binary.as_mut_slice().copy_from_slice(bytes);
            *place = Some(binary.into());
        }
    };
    match ranges::read(file, ranges.iter(), |range| announce(file, range), take) {
        Ok(()) => (atoms::ok(), found.into_iter().flatten().collect::<Vec<_>>()).encode(env),
        Err(error) => failed(env, reason(&error)),
    }
}

/// Has the operating system fetch what is going to be read: a hint, and no harm where it is not taken.
#[cfg(any(target_os = "linux", target_os = "freebsd"))]
fn announce(file: &File, range: Range) {
    use std::os::fd::AsRawFd;
    if let (Ok(offset), Ok(length)) = (
        libc::off_t::try_from(range.offset),
        libc::off_t::try_from(range.length),
    ) {
        // SAFETY: the call takes numbers only, and the file is open as long as it is borrowed.
        let _ = unsafe {
            libc::posix_fadvise(file.as_raw_fd(), offset, length, libc::POSIX_FADV_WILLNEED)
        };
    }
}

#[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
fn announce(_file: &File, _range: Range) {}

fn failed(env: Env, reason: Atom) -> Term {
    (atoms::error(), reason).encode(env)
}

/// The name that Erlang has for an error of the operating system.
fn reason(error: &io::Error) -> Atom {
    match error.raw_os_error() {
        Some(libc::EACCES) => atoms::eacces(),
        Some(libc::EBADF) => atoms::ebadf(),
        Some(libc::EINTR) => atoms::eintr(),
        Some(libc::EINVAL) => atoms::einval(),
        Some(libc::EISDIR) => atoms::eisdir(),
        Some(libc::ELOOP) => atoms::eloop(),
        Some(libc::EMFILE) => atoms::emfile(),
        Some(libc::ENAMETOOLONG) => atoms::enametoolong(),
        Some(libc::ENFILE) => atoms::enfile(),
        Some(libc::ENODEV) => atoms::enodev(),
        Some(libc::ENOENT) => atoms::enoent(),
        Some(libc::ENOMEM) => atoms::enomem(),
        Some(libc::ENOTDIR) => atoms::enotdir(),
        Some(libc::ENXIO) => atoms::enxio(),
        Some(libc::EOVERFLOW) => atoms::eoverflow(),
        Some(libc::EPERM) => atoms::eperm(),
        Some(libc::ESTALE) => atoms::estale(),
        Some(libc::ETIMEDOUT) => atoms::etimedout(),
        _ => atoms::eio(),
    }
}

fn load(_env: Env, info: Term) -> bool {
    esdb_boundary::same_version(info)
}

rustler::init!("esdb_file_nif", load = load);
