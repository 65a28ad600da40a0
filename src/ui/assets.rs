//! The page's files, which are written in `page/` and packed by build.rs, and the fields that keep a browser from doing more with them than is meant.

/// A file of the page.
pub struct Asset {
    /// What it is.
    pub content_type: &'static str,
    /// All of it, in [`CODING`].
    pub packed: &'static [u8],
}

/// The file that a path means.
pub fn at(path: &str) -> Option<&'static Asset> {
    let (_, asset) = ASSETS.iter().find(|(name, _)| *name == path)?;
    Some(asset)
}

/// Field lines of every answer. The page's scripts and styles are files of its own, so nothing that gets into its markup
/// can run; and markup cannot be made of text at all (`require-trusted-types-for`).
pub const FIELDS: &str = "Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'\r\n\
     X-Content-Type-Options: nosniff\r\n\
     Referrer-Policy: no-referrer\r\n\
     Cross-Origin-Resource-Policy: same-origin\r\n\
     Cross-Origin-Opener-Policy: same-origin\r\n\
     Cache-Control: no-store\r\n";

/// Whether or not they name it, browsers take it (RFC 9110 §12.5.3 lets those be sent any coding that name none).
pub const CODING: &str = "Content-Encoding: gzip\r\n";

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// A file of `page/`, packed by build.rs.
macro_rules! asset {
    ($content_type:expr, $name:literal) => {
        Asset {
            content_type: $content_type,
            packed: include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".gz")),
        }
    };
}

const ASSETS: &[(&str, Asset)] = &[
    ("/", asset!("text/html; charset=utf-8", "index.html")),
    ("/page.css", asset!("text/css; charset=utf-8", "page.css")),
    ("/icon.svg", asset!("image/svg+xml", "icon.svg")),
    ("/page.js", asset!(SCRIPT, "page.js")),
    ("/dom.js", asset!(SCRIPT, "dom.js")),
    ("/dialogs.js", asset!(SCRIPT, "dialogs.js")),
    ("/projects.js", asset!(SCRIPT, "projects.js")),
    ("/requests.js", asset!(SCRIPT, "requests.js")),
    ("/exchange.js", asset!(SCRIPT, "exchange.js")),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    /// The files as they are written.
    fn sources() -> Vec<(String, String)> {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ui/page");
        let source = |entry: std::io::Result<fs::DirEntry>| {
            let path = entry.expect("readable").path();
            let name = path.file_name().expect("a file").to_string_lossy();
            (name.into_owned(), fs::read_to_string(&path).expect("text"))
        };
        fs::read_dir(page).expect("a folder").map(source).collect()
    }

    #[test]
    fn the_page_asks_for_nothing_but_its_own_files() {
        for (name, text) in sources() {
            let text = text.replace("http://www.w3.org/2000/svg", "");
            for elsewhere in ["://", "src=\"//", "@import", " url("] {
                let is_script = elsewhere == "://" && name.ends_with(".js");
                assert!(
                    is_script || !text.contains(elsewhere),
                    "{name}: {elsewhere}"
                );
            }
            for markup in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
            ] {
                assert!(!text.contains(markup), "{name}: {markup}");
            }
        }
        let size: usize = ASSETS.iter().map(|(_, asset)| asset.packed.len()).sum();
        // It is part of every binary, also of those that never show it.
        assert!(size < 40 << 10, "{size} bytes");
    }

    #[test]
    fn every_file_of_the_page_is_served_and_loaded() {
        let sources = sources();
        assert_eq!(sources.len(), ASSETS.len());
        for (name, _) in &sources {
            let is_loaded = sources.iter().any(|(_, text)| {
                text.contains(&format!("\"/{name}\"")) || text.contains(&format!("'./{name}'"))
            });
            assert!(
                name == "index.html" || is_loaded,
                "{name} is loaded by nobody"
            );
            assert!(
                name == "index.html" || at(&format!("/{name}")).is_some(),
                "{name}"
            );
        }
        assert!(at("/").is_some());
        assert!(at("/page.css?x").is_none() && at("").is_none() && at("/../x").is_none());
    }
}
