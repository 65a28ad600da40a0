//! A request head is accepted if and only if a naive parser accepts it, and no prefix of it is.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| properties::request_head(input));
