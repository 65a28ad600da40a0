//! A registry is written as it is read, and what is read out of a damaged one is there in the text.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| properties::registry(input));
