//! The corpus of each target, and mutations of it that are the same in every run, on a stable compiler.
//!
//! `ESDB_FUZZ_RUNS=N` sets the number of mutations of each target.

use std::{env, fs, path::Path};

const RUNS: usize = 2_000;

#[test]
fn corpus_and_mutations() {
    let runs = env::var("ESDB_FUZZ_RUNS").map_or(RUNS, |runs| runs.parse().expect("a number"));
    for (name, target) in esdb_fuzz::TARGETS {
        let corpus = corpus(name);
        corpus.iter().for_each(|seed| target(seed));
        let mut random = Random(0x9E37_79B9_7F4A_7C15);
        (0..runs).for_each(|_| target(&mutation(&corpus, &mut random)));
    }
}

#[test]
fn every_corpus_has_a_target() {
    let names: Vec<_> = esdb_fuzz::TARGETS.iter().map(|(name, _)| *name).collect();
    for folder in fs::read_dir(folder("")).expect("the corpus") {
        let folder = folder
            .expect("a folder")
            .file_name()
            .into_string()
            .expect("a name");
        assert!(names.contains(&folder.as_str()), "no target {folder}");
    }
}

fn folder(target: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target)
}

/// In the order of the file names, so that the mutations are the same everywhere.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let files = fs::read_dir(folder(target)).unwrap_or_else(|_| panic!("no corpus for {target}"));
    let mut paths: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    paths.sort();
    let seeds: Vec<_> = paths
        .iter()
        .map(|path| fs::read(path).expect("a seed"))
        .collect();
    assert!(!seeds.is_empty(), "no seeds for {target}");
    seeds
}

/// A seed with one to four changes.
fn mutation(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut data = corpus[random.below(corpus.len())].clone();
    for _ in 0..=random.below(4) {
        change(&mut data, corpus, random);
    }
    data
}

fn change(data: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut Random) {
    let at = random.below(data.len() + 1);
    match random.below(6) {
        0 => data.truncate(at),
        1 => data.insert(at, random.byte()),
        2 => data.extend_from_within(..at),
        3 => {
            let other = &corpus[random.below(corpus.len())];
            data.truncate(at);
            data.extend_from_slice(&other[random.below(other.len() + 1)..]);
        }
        _ if data.is_empty() => data.push(random.byte()),
        4 => {
            let end = data.len();
            data[at % end] ^= 1 << random.below(8);
        }
        _ => {
            let end = data.len();
            data[at % end] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)];
        }
    }
    // Doubling upon doubling would only test the memory.
    data.truncate(1 << 16);
}

/// xorshift64*: good enough to choose bytes, the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 32) as usize % bound
    }

    fn byte(&mut self) -> u8 {
        (self.next() >> 56) as u8
    }
}
