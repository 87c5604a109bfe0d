//! The version stands in one place, the application resource file of the Erlang application.

use std::{env, fs, path::Path};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../../src/erl_esdb_nifs.app.src");
    println!("cargo::rerun-if-changed={}", file.display());
    let text = fs::read_to_string(&file)?;
    let version = text
        .split_once("{vsn, \"")
        .and_then(|(_, rest)| rest.split_once('"'))
        .map(|(version, _)| version)
        .ok_or("no {vsn, \"...\"} in the application resource file")?;
    println!("cargo::rustc-env=ESDB_VSN={version}");
    Ok(())
}
