//! A registry is written with the same meaning, and mappings recovered from a damaged text occur in it.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| properties::registry(input));
