//! Runs of records against a vector of them that is sorted.

use esdb_core::runs::{self, MAX_WIDTH, RunsError};
use proptest::prelude::*;

/// The records of some bytes, whose last ones may be none.
fn records(bytes: &[u8], width: usize) -> Vec<Vec<u8>> {
    bytes.chunks_exact(width).map(<[u8]>::to_vec).collect()
}

fn sorted(bytes: &[u8], width: usize) -> Vec<u8> {
    let mut records = records(bytes, width);
    records.sort();
    records.concat()
}

/// What the function gives, which is to write all of its room.
fn sort(bytes: &[u8], width: usize) -> Result<Vec<u8>, RunsError> {
    let mut room = vec![0xAA; bytes.len()];
    runs::sort(bytes, width, &mut room).map(|()| room)
}

fn merge(runs: &[Vec<u8>], width: usize) -> Result<Vec<u8>, RunsError> {
    let runs: Vec<&[u8]> = runs.iter().map(Vec::as_slice).collect();
    let mut room = vec![0xAA; runs.iter().map(|run| run.len()).sum()];
    runs::merge(&runs, width, &mut room).map(|()| room)
}

/// Few values, so that records are often equal, or all of them.
fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![3 => 0..3_u8, 1 => any::<u8>()]
}

/// A width and so many whole records.
fn whole(most: usize) -> impl Strategy<Value = (usize, Vec<u8>)> {
    (1..=MAX_WIDTH).prop_flat_map(move |width| {
        let bytes = prop::collection::vec(byte(), 0..most * width);
        bytes.prop_map(move |mut bytes| {
            bytes.truncate(bytes.len() / width * width);
            (width, bytes)
        })
    })
}

proptest! {
    #[test]
    fn a_run_is_its_records_in_order((width, bytes) in whole(300)) {
        prop_assert_eq!(sort(&bytes, width), Ok(sorted(&bytes, width)));
    }

    #[test]
    fn several_runs_are_one(
        (width, bytes) in whole(300),
        cuts in prop::collection::vec(0..300_usize, 0..8),
    ) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| (cut * width).min(bytes.len())).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let parts = cuts.windows(2).map(|cut| match cut {
            [from, to] => sorted(bytes.get(*from..*to).unwrap_or_default(), width),
            _ => Vec::new(),
        });
        let parts: Vec<Vec<u8>> = parts.collect();
        prop_assert_eq!(merge(&parts, width), Ok(sorted(&bytes, width)));
    }

    /// What is no run is merged all the same, and nothing is lost.
    #[test]
    fn unsorted_runs_lose_nothing((width, bytes) in whole(100), (_, more) in whole(100)) {
        let more = more.get(..more.len() / width * width).unwrap_or_default();
        let runs = [bytes.clone(), more.to_vec(), bytes.clone()];
        let merged = merge(&runs, width).map(|merged| sorted(&merged, width));
        prop_assert_eq!(merged, Ok(sorted(&[bytes.as_slice(), more, &bytes].concat(), width)));
    }
}

#[test]
fn of_nothing_comes_nothing() {
    assert_eq!(sort(&[], 14), Ok(vec![]));
    assert_eq!(merge(&[], 14), Ok(vec![]));
    assert_eq!(merge(&[vec![], vec![], vec![]], 3), Ok(vec![]));
    assert_eq!(merge(&[vec![], vec![2, 1], vec![]], 2), Ok(vec![2, 1]));
}

#[test]
fn what_is_not_whole_is_refused() {
    for width in [0, MAX_WIDTH + 1, usize::MAX] {
        assert_eq!(sort(&[], width), Err(RunsError::Width));
        assert_eq!(merge(&[], width), Err(RunsError::Width));
    }
    assert_eq!(sort(&[1, 2, 3], 2), Err(RunsError::Size));
    assert_eq!(merge(&[vec![1, 2], vec![3]], 2), Err(RunsError::Size));
    assert_eq!(runs::sort(&[1, 2], 2, &mut [0]), Err(RunsError::Size));
    assert_eq!(
        runs::merge(&[&[1, 2]], 2, &mut [0; 4]),
        Err(RunsError::Size)
    );
}
