//! The page's files, as they stand in `page/`, and the fields that keep a browser from doing more with them than is meant.

/// A file of the page.
pub struct Asset {
    /// What it is.
    pub content_type: &'static str,
    /// All of it.
    pub body: &'static str,
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

const SCRIPT: &str = "text/javascript; charset=utf-8";

const ASSETS: &[(&str, Asset)] = &[
    (
        "/",
        Asset {
            content_type: "text/html; charset=utf-8",
            body: include_str!("page/index.html"),
        },
    ),
    (
        "/page.css",
        Asset {
            content_type: "text/css; charset=utf-8",
            body: include_str!("page/page.css"),
        },
    ),
    (
        "/icon.svg",
        Asset {
            content_type: "image/svg+xml",
            body: include_str!("page/icon.svg"),
        },
    ),
    (
        "/page.js",
        Asset {
            content_type: SCRIPT,
            body: include_str!("page/page.js"),
        },
    ),
    (
        "/dom.js",
        Asset {
            content_type: SCRIPT,
            body: include_str!("page/dom.js"),
        },
    ),
    (
        "/projects.js",
        Asset {
            content_type: SCRIPT,
            body: include_str!("page/projects.js"),
        },
    ),
    (
        "/dialogs.js",
        Asset {
            content_type: SCRIPT,
            body: include_str!("page/dialogs.js"),
        },
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_asks_for_nothing_but_its_own_files() {
        let mut size = 0;
        for (name, asset) in ASSETS {
            size += asset.body.len();
            let body = asset.body.replace("http://www.w3.org/2000/svg", "");
            for elsewhere in ["://", "src=\"//", "@import", "url("] {
                let allowed = elsewhere == "://" && asset.content_type == SCRIPT;
                assert!(allowed || !body.contains(elsewhere), "{name}: {elsewhere}");
            }
            for markup in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
            ] {
                assert!(!body.contains(markup), "{name}: {markup}");
            }
        }
        // It is part of every binary, also of those that never show it.
        assert!(size < 70 << 10, "{size} bytes");
    }

    #[test]
    fn what_the_page_loads_is_there() {
        let page = at("/").expect("the page").body;
        for (name, _) in ASSETS {
            let is_loaded = ASSETS.iter().any(|(_, asset)| {
                asset.body.contains(&format!("\"{name}\""))
                    || asset.body.contains(&format!("'.{name}'"))
            });
            assert!(*name == "/" || is_loaded, "{name} is loaded by nobody");
        }
        assert!(page.starts_with("<!doctype html>"));
        assert!(at("/page.css?x").is_none() && at("").is_none() && at("/../x").is_none());
    }
}
