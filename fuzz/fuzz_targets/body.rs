//! The bytes consumed and forwarded of a body do not depend on how it is split.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| properties::body(input));
