//! The seeds of the fuzz targets, replayed against the properties of the targets. An input that a fuzzer has found is committed
//! under `fuzz/seeds` with a name that describes it.

use std::fs;
use std::path::{Path, PathBuf};

#[path = "../../fuzz/properties.rs"]
mod properties;

/// One fuzz target and its property.
type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 12] = [
    ("request_head", properties::request_head),
    ("response_head", properties::response_head),
    ("framing", properties::framing),
    ("chunked", properties::chunked),
    ("body", properties::body),
    ("trailer", properties::trailer),
    ("rewrite", properties::rewrite),
    ("target", properties::target),
    ("registry", properties::registry),
    ("command_line", properties::command_line),
    ("exchange", properties::exchange),
    ("feed", properties::feed),
];

#[test]
fn every_seed_keeps_its_property() {
    for (name, property) in TARGETS {
        let seeds = files_in(&fuzz_folder().join("seeds").join(name));
        assert!(seeds.len() >= 5, "{name} has too few seeds");
        for seed in seeds {
            println!("{}", seed.display());
            let bytes = fs::read(&seed).expect("a seed is readable");
            property(&bytes);
            // Also a partial message, and a message followed by another.
            for len in 0..bytes.len() {
                property(&bytes[..len]);
            }
            property(&bytes.repeat(2));
        }
    }
}

#[test]
fn the_seeds_of_every_fuzz_target_are_replayed() {
    let names = |folder: &str| -> Vec<String> {
        let stem = |path: &PathBuf| {
            path.file_stem()
                .map(|stem| stem.to_string_lossy().into_owned())
        };
        files_in(&fuzz_folder().join(folder))
            .iter()
            .filter_map(stem)
            .collect()
    };
    let mut expected: Vec<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    expected.sort();
    assert_eq!(names("fuzz_targets"), expected, "fuzz/fuzz_targets");
    assert_eq!(names("seeds"), expected, "fuzz/seeds");
}

/// The content of `folder`, sorted.
fn files_in(folder: &Path) -> Vec<PathBuf> {
    let entries =
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("the folder is readable").path())
        .collect();
    files.sort();
    files
}

fn fuzz_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}
