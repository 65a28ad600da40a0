//! The framing of a body equals that of a naive parser.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| properties::framing(input));
