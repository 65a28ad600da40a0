//! Each side receives the messages of the other, however their bytes are split.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| properties::exchange(input));
