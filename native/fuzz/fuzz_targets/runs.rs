#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| esdb_fuzz::runs(data));

#[cfg(not(fuzzing))]
fn main() {
    println!("{}", esdb_fuzz::HOW_TO_RUN);
}
