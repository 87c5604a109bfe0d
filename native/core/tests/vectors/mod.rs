//! Reads `test/vectors/*.json`.

use std::{fs, path::Path};

use serde_json::Value;

/// The rows under a name of a file.
pub fn rows(file: &str, name: &str) -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../test/vectors");
    let text = fs::read_to_string(folder.join(file).with_extension("json")).unwrap();
    let all: Value = serde_json::from_str(&text).unwrap();
    let rows = all[name].as_array().unwrap().clone();
    assert!(!rows.is_empty(), "no rows {name}");
    rows
}

/// The bytes that are written in hexadecimal.
pub fn bytes(hex: &Value) -> Vec<u8> {
    let digits = hex.as_str().unwrap().as_bytes();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}
