//! Ranges of a file against slices of its bytes.

use std::cell::RefCell;
use std::fs::{self, File};

use esdb_core::ranges::{self, Range};
use proptest::prelude::*;

/// A file for as long as this lives, closed and removed also when a test fails.
struct Temporary(std::path::PathBuf);

impl Temporary {
    fn new(bytes: &[u8]) -> std::io::Result<Self> {
        static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("esdb-ranges-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, bytes)?;
        Ok(Self(path))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// What is read of each range, and the stretches that were announced.
fn read(bytes: &[u8], wanted: &[Range]) -> std::io::Result<(Vec<Vec<u8>>, Vec<Range>)> {
    let temporary = Temporary::new(bytes)?;
    let file = File::open(&temporary.0)?;
    let told = RefCell::new(Vec::new());
    let mut found = vec![Vec::new(); wanted.len()];
    let take = |number: usize, part: &[u8]| {
        if let Some(place) = found.get_mut(number) {
            *place = part.to_vec();
        }
    };
    ranges::read(
        &file,
        wanted.iter(),
        |range| told.borrow_mut().push(range),
        take,
    )?;
    Ok((found, told.into_inner()))
}

fn expected(bytes: &[u8], range: Range) -> Vec<u8> {
    let skipped = bytes
        .iter()
        .skip(usize::try_from(range.offset).unwrap_or(usize::MAX));
    skipped.take(range.length).copied().collect()
}

/// Different in every place.
fn content(size: usize) -> Vec<u8> {
    (0..size)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect()
}

fn range() -> impl Strategy<Value = Range> {
    let offset = prop_oneof![
        8 => 0..1_000_000_u64,
        2 => 0..3_000_000_u64,
        1 => Just(u64::MAX / 2),
    ];
    let length = prop_oneof![
        8 => 0..600_usize,
        2 => 0..20_000_usize,
        1 => 0..700_000_usize,
    ];
    (offset, length).prop_map(|(offset, length)| Range { offset, length })
}

proptest! {
    #[test]
    fn ranges_are_slices(
        size in prop_oneof![Just(0_usize), 0..2_000_000_usize],
        wanted in prop::collection::vec(range(), 0..40),
    ) {
        let bytes = content(size);
        let (found, _) = read(&bytes, &wanted)?;
        let all: Vec<_> = wanted.iter().map(|range| expected(&bytes, *range)).collect();
        prop_assert_eq!(found, all);
    }
}

/// So many ranges of one length, each so many bytes behind the one before.
fn every(step: u64, length: usize, count: u64) -> Vec<Range> {
    (0..count)
        .map(|n| Range {
            offset: n * step,
            length,
        })
        .collect()
}

/// Neighbours are one stretch, those far from each other are announced as several.
#[test]
fn near_ranges_are_one_stretch() -> std::io::Result<()> {
    let bytes = content(3_000_000);
    let near = every(2_000, 400, 100);
    assert_eq!(read(&bytes, &near)?.1, vec![]);
    let far = every(20_000, 400, 100);
    assert_eq!(read(&bytes, &far)?.1, far);
    Ok(())
}

/// To an operating system that is told of it, no length means all that comes behind.
#[test]
fn nothing_to_read_is_not_announced() -> std::io::Result<()> {
    let bytes = content(3_000_000);
    let far = every(20_000, 400, 100);
    let none = |offset: u64| Range { offset, length: 0 };
    let behind = Range {
        offset: 3_000_100,
        length: 1,
    };
    let wanted = [&far[..], &[none(2_500_000), none(0), behind]].concat();
    let (found, told) = read(&bytes, &wanted)?;
    assert_eq!(told, far);
    assert!(found.iter().skip(far.len()).all(Vec::is_empty));
    Ok(())
}

/// However near they are, what is read at once is bounded.
#[test]
fn stretches_are_bounded() -> std::io::Result<()> {
    let bytes = content(3_000_000);
    let each = every(1_000, 1_000, 3_000);
    let told = read(&bytes, &each)?.1;
    assert!(told.len() > 10);
    assert!(told.iter().all(|range| range.length <= 256 * 1024));
    assert_eq!(
        told.iter().map(|range| range.length).sum::<usize>(),
        3_000_000
    );
    Ok(())
}
