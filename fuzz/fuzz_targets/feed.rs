//! Observed bodies and commands do not depend on how the bytes are split, and equal the result of a naive parser.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| properties::feed(input));
