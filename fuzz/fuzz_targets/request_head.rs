//! A request head is taken exactly where a naive reader takes it, and no prefix of it sooner.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| properties::request_head(input));
