//! Compresses the files of the page of `ic ui`, which the program contains: a quarter of their size, and as browsers accept them.

#[cfg(not(feature = "ui"))]
fn main() {}

#[cfg(feature = "ui")]
fn main() -> std::io::Result<()> {
    use std::io::Write as _;
    use std::path::Path;
    use std::{env, fs, io};

    use flate2::Compression;
    use flate2::write::GzEncoder;

    const PAGE: &str = "src/ui/page";

    println!("cargo::rerun-if-changed={PAGE}");
    let out = env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?;
    for entry in fs::read_dir(PAGE)? {
        let entry = entry?;
        let mut name = entry.file_name();
        name.push(".gz");
        let compressed = fs::File::create(Path::new(&out).join(name))?;
        let mut encoder = GzEncoder::new(compressed, Compression::best());
        encoder.write_all(&fs::read(entry.path())?)?;
        encoder.finish()?;
    }
    Ok(())
}
