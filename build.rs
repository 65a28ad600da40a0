//! Packs the files of the page of `ic ui`, which every binary carries: a quarter of their size, and as browsers take them.

use std::io::Write as _;
use std::path::Path;
use std::{env, fs, io};

use flate2::Compression;
use flate2::write::GzEncoder;

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed={PAGE}");
    let out = env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?;
    for entry in fs::read_dir(PAGE)? {
        let entry = entry?;
        let mut name = entry.file_name();
        name.push(".gz");
        let packed = fs::File::create(Path::new(&out).join(name))?;
        let mut packer = GzEncoder::new(packed, Compression::best());
        packer.write_all(&fs::read(entry.path())?)?;
        packer.finish()?;
    }
    Ok(())
}

const PAGE: &str = "src/ui/page";
