//! What passes of a trailer section is a trailer section, without what must not pass.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| properties::trailer(input));
