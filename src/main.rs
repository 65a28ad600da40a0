//! The `ic` program: its arguments in, its exit code out. Nothing else ends the process.

use std::process::ExitCode;

use interceptor::cli;

fn main() -> ExitCode {
    cli::run(std::env::args_os().skip(1)).into()
}
