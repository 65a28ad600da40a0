//! What traffic says of itself, and what listeners say, is the same however the bytes are split, and what JSON says.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| properties::feed(input));
