//! Any list of arguments is accepted, or refused with one line.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| properties::command_line(input));
