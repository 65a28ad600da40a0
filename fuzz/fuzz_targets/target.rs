//! A target for the origin is a target, behind its base path, with one version.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| properties::target(input));
