//! Mappings as comma-separated values (RFC 4180), for spreadsheets and scripts: a header, then a path and a port a line.
//!
//! Written are the columns `path` and `port`; read is any file that has both, in any order and among others. A path is
//! written as its bytes. What is noted beside a mapping is not in it: the JSON form carries that.

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};

use super::damage::Shown;
use super::json::path_of;
use super::model::{BYTE_ORDER_MARK, Mapping, Registry};
use super::port::Port;

/// Why a text cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadCsv {
    /// From 1.
    pub line: usize,
    /// What is wrong there.
    pub wrong: Wrong,
}

/// What is wrong in a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrong {
    /// A quoted value has no end, or something follows it.
    Quotes,
    /// The line ends before its path or port.
    Short,
    /// The path is not absolute.
    NotAbsolute(PathBuf),
    /// The port is none.
    NoPort(String),
    /// The path has been there before.
    PathTwice(PathBuf),
    /// The port has been there before.
    PortTwice(Port),
}

impl fmt::Display for BadCsv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        match &self.wrong {
            Wrong::Quotes => f.write_str("a quoted value does not end where it should"),
            Wrong::Short => f.write_str("it has no path or no port"),
            Wrong::NotAbsolute(path) => write!(f, "the path `{}` is not absolute", Shown(path)),
            Wrong::NoPort(text) => write!(f, "`{}` is no port", Shown(Path::new(text))),
            Wrong::PathTwice(path) => write!(f, "`{}` is there twice", Shown(path)),
            Wrong::PortTwice(port) => write!(f, "port {port} is there twice"),
        }
    }
}

impl std::error::Error for BadCsv {}

impl Registry {
    /// The mappings as comma-separated values, sorted by port.
    pub fn to_csv(&self) -> Vec<u8> {
        let mut text = b"path,port\r\n".to_vec();
        for (path, port) in self.mappings() {
            let path = path.as_os_str().as_encoded_bytes();
            if path.iter().any(|byte| b",\"\r\n".contains(byte)) {
                text.push(b'"');
                for &byte in path {
                    text.extend(if byte == b'"' {
                        &b"\"\""[..]
                    } else {
                        std::slice::from_ref(&byte)
                    });
                }
                text.push(b'"');
            } else {
                text.extend(path);
            }
            text.extend(format!(",{port}\r\n").bytes());
        }
        text
    }

    /// Reads comma-separated values; `None` if the text has no header with a `path` and a `port` in it, and is something
    /// else.
    ///
    /// # Errors
    ///
    /// The first line that cannot be taken.
    pub fn from_csv(text: &[u8]) -> Option<Result<Registry, BadCsv>> {
        let mut rows = Rows::of(text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text));
        let (_, header) = rows.next()?.ok()?;
        let column = |name: &str| {
            header
                .iter()
                .position(|title| title.trim_ascii().eq_ignore_ascii_case(name.as_bytes()))
        };
        let (path, port) = (column("path")?, column("port")?);
        Some(mappings(rows, path, port))
    }
}

fn mappings(rows: Rows<'_>, path: usize, port: usize) -> Result<Registry, BadCsv> {
    let mut registry = Registry::default();
    let (mut paths, mut ports) = (HashSet::new(), HashSet::new());
    for row in rows {
        let (line, values) = row?;
        let bad = |wrong| BadCsv { line, wrong };
        if values.iter().all(|value| value.trim_ascii().is_empty()) {
            continue;
        }
        let (Some(path), Some(port)) = (values.get(path), values.get(port)) else {
            return Err(bad(Wrong::Short));
        };
        let path = path_of(path.clone());
        if !path.is_absolute() || path.as_os_str().as_encoded_bytes().contains(&0) {
            return Err(bad(Wrong::NotAbsolute(path)));
        }
        let port = String::from_utf8_lossy(port.trim_ascii());
        let Ok(port) = port.parse::<Port>() else {
            return Err(bad(Wrong::NoPort(port.into_owned())));
        };
        if !paths.insert(path.clone()) {
            return Err(bad(Wrong::PathTwice(path)));
        }
        if !ports.insert(port) {
            return Err(bad(Wrong::PortTwice(port)));
        }
        registry.mappings.push(Mapping::new(&path, port));
    }
    Ok(registry)
}

/// The rows of a text, each with the number of its first line.
struct Rows<'a> {
    rest: &'a [u8],
    line: usize,
}

impl<'a> Rows<'a> {
    fn of(text: &'a [u8]) -> Self {
        Rows {
            rest: text,
            line: 1,
        }
    }

    fn next_byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        self.line += usize::from(byte == b'\n');
        Some(byte)
    }

    /// The value that begins here, and whether the row goes on behind it; `None` for quotes that are wrong.
    fn value(&mut self) -> Option<(Vec<u8>, bool)> {
        let mut value = Vec::new();
        let is_quoted = self.rest.first() == Some(&b'"');
        if is_quoted {
            self.next_byte();
            loop {
                match self.next_byte()? {
                    b'"' if self.rest.first() == Some(&b'"') => {
                        self.next_byte();
                        value.push(b'"');
                    }
                    b'"' => break,
                    byte => value.push(byte),
                }
            }
        }
        loop {
            match self.next_byte() {
                None | Some(b'\n') => return Some((value, false)),
                Some(b',') => return Some((value, true)),
                Some(b'\r') if matches!(self.rest.first(), None | Some(b'\n')) => {}
                Some(_) if is_quoted => return None,
                Some(byte) => value.push(byte),
            }
        }
    }
}

impl Iterator for Rows<'_> {
    type Item = Result<(usize, Vec<Vec<u8>>), BadCsv>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let line = self.line;
        let mut values = Vec::new();
        loop {
            let Some((value, goes_on)) = self.value() else {
                self.rest = &[];
                return Some(Err(BadCsv {
                    line,
                    wrong: Wrong::Quotes,
                }));
            };
            values.push(value);
            if !goes_on {
                return Some(Ok((line, values)));
            }
        }
    }
}
