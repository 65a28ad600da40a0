//! What the origin gets is what the client sent, and the reverse, in whatever pieces it arrives.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| properties::exchange(input));
