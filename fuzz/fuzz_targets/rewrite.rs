//! A head for the next hop has the same framing, no hop-by-hop fields, and the fields of the interceptor once.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| properties::rewrite(input));
