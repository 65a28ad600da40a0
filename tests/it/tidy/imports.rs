//! Imports between the files of `src/`: there are no circles, and a layer imports only the layers below it.
//!
//! An import is a path that starts with `crate`, `self`, `super` or a child module, in a `use` or in the code. Comments and unit
//! tests are ignored, and so is `pub use` of a module's own children.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{read, root, sources, without_comment, without_unit_tests};

/// The top-level modules, each with those that it may import. `cli` may import every one, and none may import `cli`.
const LAYERS: &[(&str, &[&str])] = &[
    ("text", &[]),
    ("http", &[]),
    ("registry", &["text"]),
    ("serve", &["http", "text"]),
    ("httpd", &["http", "serve"]),
    ("mock", &["http", "httpd", "serve", "text"]),
    ("machine", &["http", "serve", "text"]),
    ("ui", &["http", "httpd", "machine", "registry", "text"]),
];

/// Each file as a module path below the crate (`serve::feed`; empty: `lib.rs`), with the files that it imports.
type Imports = BTreeMap<String, BTreeSet<String>>;

#[test]
fn there_is_no_import_circle() {
    let imports = imports();
    let circles: Vec<String> = (imports.keys())
        .filter_map(|file| circle_through(file, &imports))
        .map(|circle| circle.join(" → "))
        .collect();
    assert!(circles.is_empty(), "\n{}", circles.join("\n"));
}

#[test]
fn a_layer_imports_only_the_layers_below_it() {
    let top = |file: &str| file.split("::").next().unwrap_or_default().to_owned();
    let imports = imports();
    let mut wrong = Vec::new();
    for (layer, below) in LAYERS {
        let files = imports.iter().filter(|(file, _)| top(file) == *layer);
        for (file, imported) in files {
            let refused = |to: &&String| top(to) != *layer && !below.contains(&top(to).as_str());
            wrong.extend(
                imported
                    .iter()
                    .filter(refused)
                    .map(|to| format!("{file} imports {to}")),
            );
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn an_import_is_resolved_to_the_file_that_defines_it() {
    let files = BTreeSet::from(["", "a", "a::b", "a::b::c", "d"].map(str::to_owned));
    #[track_caller]
    fn check(files: &BTreeSet<String>, here: &str, code: &str, expected: &[&str]) {
        let found: Vec<String> = imported(here, code, files).into_iter().collect();
        assert_eq!(found, expected, "{code}");
    }
    check(&files, "a", "use crate::d::{self, X};", &["d"]);
    check(
        &files,
        "d",
        "pub use crate::a::{b::{c::X, Y}, Z as W};",
        &["a", "a::b", "a::b::c"],
    );
    check(&files, "a::b", "use super::X;\nuse std::fmt;", &["a"]);
    check(&files, "a::b::c", "    let x = super::super::y();", &["a"]);
    check(&files, "a", "use self::b::X;", &["a::b"]);
    check(&files, "a", "mod b;\nuse b::X;", &["a::b"]);
    check(&files, "a", "pub use self::b::X;", &[]);
    check(&files, "a", "pub(in crate::d) fn x() {}\n// crate::d", &[]);
    check(&files, "d", "use crate::X;", &[""]);
    check(
        &files,
        "d",
        "#[cfg(test)]\nmod tests {\n    use crate::a;\n}",
        &[],
    );
}

fn imports() -> Imports {
    let folder = root().join("src");
    let mut texts = BTreeMap::new();
    for path in sources("src") {
        let name = path
            .strip_prefix(&folder)
            .expect("every source is below src/");
        let name = name.with_extension("").to_string_lossy().replace('/', "::");
        match name.as_str() {
            // A separate crate.
            "main" => continue,
            "lib" => texts.insert(String::new(), read(&path)),
            _ => texts.insert(name, read(&path)),
        };
    }
    let files: BTreeSet<String> = texts.keys().cloned().collect();
    let imported = |(file, text): (&String, &String)| (file.clone(), imported(file, text, &files));
    texts.iter().map(imported).collect()
}

/// The files that the text of `here` imports.
fn imported(here: &str, text: &str, files: &BTreeSet<String>) -> BTreeSet<String> {
    let lines = without_unit_tests(text).lines().map(without_comment);
    let code = lines.collect::<Vec<_>>().join("\n");
    let mut found = BTreeSet::new();
    let mut line_start = 0;
    for line in code.split_inclusive('\n') {
        let is_public_use = line.starts_with("pub") && line.contains(" use ");
        for start in path_starts(line, here, files) {
            let mut paths = Vec::new();
            read_tree("", &code[line_start + start..], &mut paths);
            let to = paths.iter().map(|path| resolve(path, here, files));
            let is_own_child = |to: &str| is_public_use && is_below(to, here);
            found.extend(to.filter(|to| to != here && !is_own_child(to)));
        }
        line_start += line.len();
    }
    found
}

/// Where in the line a path to another file starts.
fn path_starts(line: &str, here: &str, files: &BTreeSet<String>) -> Vec<usize> {
    let is_start = |at: usize| {
        let before = &line[..at];
        !before.ends_with("(in ") && !before.ends_with(|c: char| c.is_alphanumeric() || c == ':')
    };
    let words = ["crate::", "self::", "super::"];
    let words = words.into_iter().flat_map(|word| line.match_indices(word));
    let mut starts: Vec<usize> = words.map(|(at, _)| at).filter(|&at| is_start(at)).collect();
    if let Some((before, path)) = line.split_once("use ")
        && (before.is_empty() || before.starts_with("pub"))
    {
        let first = path.split("::").next().unwrap_or_default();
        if files.contains(&format!("{here}::{first}")) {
            starts.push(before.len() + "use ".len());
        }
    }
    starts
}

/// Reads a path or a tree of them, such as `a::{b, c::D}`; returns what follows it.
fn read_tree<'t>(prefix: &str, text: &'t str, found: &mut Vec<String>) -> &'t str {
    let is_end = |c: char| !c.is_alphanumeric() && c != '_' && c != ':';
    let (path, mut rest) = text.split_at(text.find(is_end).unwrap_or(text.len()));
    let path = format!("{prefix}{path}");
    if !rest.starts_with('{') {
        found.push(path);
        return rest;
    }
    rest = &rest[1..];
    loop {
        rest = rest.trim_start_matches(|c: char| c == ',' || c.is_whitespace());
        if let Some(rest) = rest.strip_prefix('}') {
            return rest;
        }
        // The inner tree may be followed by `as NAME`.
        rest = read_tree(&path, rest, found).trim_start_matches(|c| c != ',' && c != '}');
        assert!(!rest.is_empty(), "`{path}` has no end");
    }
}

/// The file that defines what `path` names, as seen from `here`.
fn resolve(path: &str, here: &str, files: &BTreeSet<String>) -> String {
    let mut at: Vec<&str> = here.split("::").filter(|name| !name.is_empty()).collect();
    for name in path.split("::") {
        match name {
            "crate" => at.clear(),
            "self" | "" => {}
            "super" => drop(at.pop()),
            name => at.push(name),
        }
    }
    while !files.contains(&at.join("::")) {
        at.pop();
    }
    at.join("::")
}

fn is_below(file: &str, parent: &str) -> bool {
    let below = file.strip_prefix(parent);
    below.is_some_and(|rest| parent.is_empty() || rest.starts_with("::"))
}

/// A shortest circle through `file`.
fn circle_through(file: &str, imports: &Imports) -> Option<Vec<String>> {
    let mut seen = BTreeSet::new();
    let mut open = VecDeque::from([vec![file.to_owned()]]);
    while let Some(way) = open.pop_front() {
        for next in way
            .last()
            .and_then(|last| imports.get(last))
            .into_iter()
            .flatten()
        {
            let longer = || way.iter().chain([next]).cloned().collect();
            if next == file {
                return Some(longer());
            }
            if seen.insert(next.clone()) {
                open.push_back(longer());
            }
        }
    }
    None
}
