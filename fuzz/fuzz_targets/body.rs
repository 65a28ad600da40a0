//! Any split of a body's bytes takes the same of them and sends the same on.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| properties::body(input));
