//! A forwarded trailer section is a valid trailer section without forbidden fields.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| properties::trailer(input));
