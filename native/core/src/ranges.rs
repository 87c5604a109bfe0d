//! Many ranges of one file, read with few calls.
//!
//! Ranges that lie near each other are read together, with what is between them. What is not in the memory of the
//! operating system it is told of before the first read, so that a disk may fetch all of it at a time.

use std::fs::File;
use std::io;

/// Bytes from an offset on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Where it begins.
    pub offset: u64,
    /// How many bytes there are to be.
    pub length: usize,
}

impl Range {
    fn end(self) -> u64 {
        self.offset.saturating_add(self.length as u64)
    }
}

/// Bytes between two ranges that are read along: about what a page of memory has, which is read anyway.
const GAP: u64 = 4096;
/// Bytes that are read at once, unless one range alone is longer.
const RUN: u64 = 256 * 1024;

/// What is read at once: a stretch of the file, and which ranges lie in it.
#[derive(Debug, PartialEq, Eq)]
struct Run {
    whole: Range,
    members: Vec<usize>,
}

/// Reads all ranges of a file, and hands out each with its number, in the order of the file. A range has fewer bytes,
/// or none, where the file ends.
///
/// `tell` is told of each stretch that is going to be read, if there are several; one without a length is none.
///
/// # Errors
///
/// That of the first read that failed.
pub fn read<'a>(
    file: &File,
    ranges: impl Iterator<Item = &'a Range>,
    tell: impl Fn(Range),
    mut take: impl FnMut(usize, &[u8]),
) -> io::Result<()> {
    let size = file.metadata()?.len();
    let ranges: Vec<Range> = ranges.map(|range| within(*range, size)).collect();
    let runs = runs(&ranges);
    let to_read = || {
        let wholes = runs.iter().map(|run| run.whole);
        wholes.filter(|whole| whole.length > 0)
    };
    if to_read().nth(1).is_some() {
        to_read().for_each(&tell);
    }
    let mut buffer = Vec::new();
    for run in &runs {
        buffer.resize(run.whole.length, 0);
        let filled = fill(file, &mut buffer, run.whole.offset)?;
        let there = buffer.get(..filled).unwrap_or_default();
        for &number in &run.members {
            if let Some(range) = ranges.get(number) {
                take(number, part(there, run.whole.offset, *range));
            }
        }
    }
    Ok(())
}

/// What of a range there is in a file of this size: nothing is reserved for what cannot be read.
fn within(range: Range, size: u64) -> Range {
    let left = size.saturating_sub(range.offset);
    let length = range
        .length
        .min(usize::try_from(left).unwrap_or(usize::MAX));
    Range { length, ..range }
}

fn runs(ranges: &[Range]) -> Vec<Run> {
    let mut order: Vec<(usize, Range)> = ranges.iter().copied().enumerate().collect();
    order.sort_by_key(|(_, range)| range.offset);
    let mut runs: Vec<Run> = Vec::new();
    for (number, range) in order {
        match runs.last_mut() {
            Some(run) if is_near(run.whole, range) => {
                let end = run.whole.end().max(range.end());
                run.whole.length = usize::try_from(end - run.whole.offset).unwrap_or(usize::MAX);
                run.members.push(number);
            }
            _ => runs.push(Run {
                whole: range,
                members: vec![number],
            }),
        }
    }
    runs
}

/// Whether a range that begins no earlier is read along.
fn is_near(run: Range, range: Range) -> bool {
    range.offset <= run.end().saturating_add(GAP)
        && (range.end() <= run.end() || range.end() - run.offset <= RUN)
}

/// The part of what begins at an offset that is a range.
fn part(bytes: &[u8], begin: u64, range: Range) -> &[u8] {
    let first = usize::try_from(range.offset.saturating_sub(begin)).unwrap_or(usize::MAX);
    let rest = bytes.get(first..).unwrap_or_default();
    rest.get(..range.length).unwrap_or(rest)
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(left) = buffer.get_mut(filled..).filter(|left| !left.is_empty()) {
        match read_at(file, left, offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(unix)]
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buffer, offset)
}

#[cfg(windows)]
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buffer, offset)
}
