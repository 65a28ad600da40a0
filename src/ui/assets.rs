//! The files of the page, which are in `page/` and compressed by build.rs, and the fields that restrict what a browser does
//! with them.

/// A file of the page.
pub struct Asset {
    /// Its media type.
    pub content_type: &'static str,
    /// Its content, in [`CODING`].
    pub packed: &'static [u8],
}

/// The file at a path.
pub fn at(path: &str) -> Option<&'static Asset> {
    let (_, asset) = ASSETS.iter().find(|(name, _)| *name == path)?;
    Some(asset)
}

/// Field lines of every response. The page's scripts and styles are files of its own, so nothing in its markup can run; and
/// no markup can be made from text (`require-trusted-types-for`). Images of recorded bodies are `data:` URLs, which load nothing.
pub const FIELDS: &str = "Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'\r\n\
     X-Content-Type-Options: nosniff\r\n\
     Referrer-Policy: no-referrer\r\n\
     Cross-Origin-Resource-Policy: same-origin\r\n\
     Cross-Origin-Opener-Policy: same-origin\r\n\
     Cache-Control: no-store\r\n";

/// Sent without regard to `Accept-Encoding`: every browser accepts gzip.
pub const CODING: &str = "Content-Encoding: gzip\r\n";

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// A file of `page/`, compressed by build.rs.
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
    ("/address.js", asset!(SCRIPT, "address.js")),
    ("/dom.js", asset!(SCRIPT, "dom.js")),
    ("/list.js", asset!(SCRIPT, "list.js")),
    ("/dialogs.js", asset!(SCRIPT, "dialogs.js")),
    ("/projects.js", asset!(SCRIPT, "projects.js")),
    ("/connect.js", asset!(SCRIPT, "connect.js")),
    ("/menu.js", asset!(SCRIPT, "menu.js")),
    ("/requests.js", asset!(SCRIPT, "requests.js")),
    ("/columns.js", asset!(SCRIPT, "columns.js")),
    ("/conversations.js", asset!(SCRIPT, "conversations.js")),
    ("/exchanges.js", asset!(SCRIPT, "exchanges.js")),
    ("/filter.js", asset!(SCRIPT, "filter.js")),
    ("/har.js", asset!(SCRIPT, "har.js")),
    ("/prices.js", asset!(SCRIPT, "prices.js")),
    ("/request_pane.js", asset!(SCRIPT, "request_pane.js")),
    ("/format.js", asset!(SCRIPT, "format.js")),
    ("/exchange.js", asset!(SCRIPT, "exchange.js")),
    ("/answer.js", asset!(SCRIPT, "answer.js")),
    ("/messages.js", asset!(SCRIPT, "messages.js")),
    ("/images.js", asset!(SCRIPT, "images.js")),
    ("/answer_view.js", asset!(SCRIPT, "answer_view.js")),
    ("/texts.js", asset!(SCRIPT, "texts.js")),
    ("/server.js", asset!(SCRIPT, "server.js")),
    ("/send_dialog.js", asset!(SCRIPT, "send_dialog.js")),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    /// The files in `page/`.
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
    fn the_page_loads_only_its_own_files() {
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
        // It is part of every binary with the feature `ui`.
        assert!(size < 64 << 10, "{size} bytes");
    }

    #[test]
    fn every_file_of_the_page_is_served_and_loaded() {
        let sources = sources();
        assert_eq!(sources.len(), ASSETS.len());
        for (name, _) in &sources {
            let is_loaded = sources.iter().any(|(_, text)| {
                text.contains(&format!("\"/{name}\"")) || text.contains(&format!("'./{name}'"))
            });
            assert!(name == "index.html" || is_loaded, "{name} is not loaded");
            assert!(
                name == "index.html" || at(&format!("/{name}")).is_some(),
                "{name}"
            );
        }
        assert!(at("/").is_some());
        assert!(at("/page.css?x").is_none() && at("").is_none() && at("/../x").is_none());
    }
}
