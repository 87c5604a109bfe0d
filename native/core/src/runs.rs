//! Sorted runs: records of one width in one piece of memory, in the order of their bytes.
//!
//! Records are at most as wide as the widest integer, and compared as big-endian numbers, which is the order of
//! their bytes. Equal ones are the same, so nobody can tell in which order they stand.

/// The widest records there are, in bytes.
pub const MAX_WIDTH: usize = 16;

/// Why records are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunsError {
    /// The width is 0 or above [`MAX_WIDTH`].
    Width,
    /// The bytes are not a number of whole records, or the room for the result is of another size.
    Size,
}

/// Calls a function with the width, which is known when it is compiled: only so is a record a load or two.
macro_rules! with_width {
    ($width:expr, $function:ident($($argument:expr),*)) => {
        match $width {
            1 => Ok($function::<1>($($argument),*)),
            2 => Ok($function::<2>($($argument),*)),
            3 => Ok($function::<3>($($argument),*)),
            4 => Ok($function::<4>($($argument),*)),
            5 => Ok($function::<5>($($argument),*)),
            6 => Ok($function::<6>($($argument),*)),
            7 => Ok($function::<7>($($argument),*)),
            8 => Ok($function::<8>($($argument),*)),
            9 => Ok($function::<9>($($argument),*)),
            10 => Ok($function::<10>($($argument),*)),
            11 => Ok($function::<11>($($argument),*)),
            12 => Ok($function::<12>($($argument),*)),
            13 => Ok($function::<13>($($argument),*)),
            14 => Ok($function::<14>($($argument),*)),
            15 => Ok($function::<15>($($argument),*)),
            16 => Ok($function::<16>($($argument),*)),
            _ => Err(RunsError::Width),
        }
    };
}

/// Writes the records of `records` into `sorted`, in their order.
///
/// # Errors
///
/// When the width or a size is wrong.
pub fn sort(records: &[u8], width: usize, sorted: &mut [u8]) -> Result<(), RunsError> {
    whole(records, width)?;
    room(records.len(), sorted)?;
    with_width!(width, sort_records(records, sorted))
}

/// Writes the records of all runs, each sorted, into `merged`, in their order.
///
/// They are merged two by two, neighbours first; what is not sorted is thus merged by what stands in front.
///
/// # Errors
///
/// When the width or a size is wrong.
pub fn merge(runs: &[&[u8]], width: usize, merged: &mut [u8]) -> Result<(), RunsError> {
    runs.iter().try_for_each(|run| whole(run, width))?;
    room(runs.iter().map(|run| run.len()).sum(), merged)?;
    with_width!(width, merge_runs(runs, merged))
}

fn whole(records: &[u8], width: usize) -> Result<(), RunsError> {
    match records.len().checked_rem(width) {
        Some(0) => Ok(()),
        Some(_) => Err(RunsError::Size),
        None => Err(RunsError::Width),
    }
}

fn room(size: usize, result: &[u8]) -> Result<(), RunsError> {
    if result.len() == size {
        Ok(())
    } else {
        Err(RunsError::Size)
    }
}

/// A record as a number; of one that is shorter, which there is none of, nothing.
#[inline(always)]
fn number<const W: usize>(record: &[u8]) -> u128 {
    let mut bytes = [0; MAX_WIDTH];
    if let (Some(to), Some(from)) = (bytes.get_mut(..W), record.get(..W)) {
        to.copy_from_slice(from);
    }
    u128::from_be_bytes(bytes)
}

#[inline(always)]
fn put<const W: usize>(number: u128, record: &mut [u8]) {
    let bytes = number.to_be_bytes();
    if let (Some(to), Some(from)) = (record.get_mut(..W), bytes.get(..W)) {
        to.copy_from_slice(from);
    }
}

fn sort_records<const W: usize>(records: &[u8], sorted: &mut [u8]) {
    let mut numbers: Vec<u128> = records.chunks_exact(W).map(number::<W>).collect();
    numbers.sort_unstable();
    for (record, number) in sorted.chunks_exact_mut(W).zip(numbers) {
        put::<W>(number, record);
    }
}

fn merge_runs<const W: usize>(runs: &[&[u8]], merged: &mut [u8]) {
    match runs {
        [] => {}
        [run] => merged.copy_from_slice(run),
        [left, right] => merge_two::<W>(left, right, merged),
        _ => {
            let pairs: Vec<Vec<u8>> = runs.chunks(2).map(merge_pair::<W>).collect();
            let pairs: Vec<&[u8]> = pairs.iter().map(Vec::as_slice).collect();
            merge_runs::<W>(&pairs, merged);
        }
    }
}

fn merge_pair<const W: usize>(pair: &[&[u8]]) -> Vec<u8> {
    let mut merged = vec![0; pair.iter().map(|run| run.len()).sum()];
    merge_runs::<W>(pair, &mut merged);
    merged
}

/// Which record is next is as good as random, so what depends on it is no branch but an addition.
fn merge_two<const W: usize>(left: &[u8], right: &[u8], merged: &mut [u8]) {
    let (mut l, mut r) = (0, 0);
    let mut records = merged.chunks_exact_mut(W);
    while let (Some(from_left), Some(from_right)) = (left.get(l..l + W), right.get(r..r + W)) {
        let (a, b) = (number::<W>(from_left), number::<W>(from_right));
        let is_left = a <= b;
        let Some(record) = records.next() else { return };
        put::<W>(if is_left { a } else { b }, record);
        l += W * usize::from(is_left);
        r += W * usize::from(!is_left);
    }
    let rest = left.get(l..).unwrap_or_default().chunks_exact(W);
    let rest = rest.chain(right.get(r..).unwrap_or_default().chunks_exact(W));
    for (record, left_over) in records.zip(rest) {
        record.copy_from_slice(left_over);
    }
}
