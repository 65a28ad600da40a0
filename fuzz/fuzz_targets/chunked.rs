//! A chunked body ends where a naive decoder finds its end, however its bytes are split.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| properties::chunked(input));
