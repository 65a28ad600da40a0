//! A head for the next hop is a head with the same framing, without this hop's fields, with ours set once.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| properties::rewrite(input));
