//! A body is framed exactly as a naive reading of all its fields allows.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| properties::framing(input));
