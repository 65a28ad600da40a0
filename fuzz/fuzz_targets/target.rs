//! A target for the origin is valid, starts with the base path, and contains one version.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| properties::target(input));
