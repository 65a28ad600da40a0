//! The invariants of `src/lib.rs`, as far as the text of the source can show them.
//!
//! A rule lists words that the code of some files may not contain, and the reason. Comments do not count, nor do the unit
//! tests at a file's end, unless the rule says so. A file or folder that a rule names must exist, and an
//! exception must be needed.

/// Imports between files: no circles, and no layer imports one above it.
mod imports;

use std::fs;
use std::path::{Path, PathBuf};

struct Rule {
    why: &'static str,
    /// Files, and folders with all that is in them.
    files: &'static [&'static str],
    /// The files and folders among them that may.
    except: &'static [&'static str],
    /// What may not be mentioned, in any case.
    words: &'static [&'static str],
    text: Text,
}

/// What of a file is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Text {
    /// The program: neither comments nor unit tests.
    Code,
    /// All but comments.
    CodeAndTests,
}

const RULES: &[Rule] = &[
    Rule {
        why: "http is pure: no I/O, no waiting, no clock, no threads, no log, no crate but httparse, so a fuzzer calls what runs",
        files: &["src/http.rs", "src/http"],
        except: &[],
        words: &[
            "async ",
            ".await",
            "smol",
            "async_io",
            "async_net",
            "rustix",
            "std::env",
            "std::fs",
            "std::io",
            "std::process",
            "std::sync",
            "std::thread",
            "std::time",
            "TcpStream",
            "TcpListener",
            "UdpSocket",
            "log::",
            "thread_local!",
            "static mut",
            "serde",
            "argh",
        ],
        text: Text::Code,
    },
    Rule {
        why: "the two halves never meet: what runs on a port does not know whose it is",
        files: &["src/serve.rs", "src/serve"],
        except: &[],
        words: &["crate::registry", "crate::cli"],
        text: Text::CodeAndTests,
    },
    Rule {
        why: "the two halves never meet: whose a port is does not depend on what runs on it",
        files: &["src/registry.rs", "src/registry"],
        except: &[],
        words: &["crate::serve", "crate::http", "crate::cli"],
        text: Text::CodeAndTests,
    },
    Rule {
        why: "machine knows neither the commands and the page that use it, nor the registry",
        files: &["src/machine.rs", "src/machine"],
        except: &[],
        words: &["crate::cli", "crate::ui", "crate::registry", "crate::mock"],
        text: Text::CodeAndTests,
    },
    Rule {
        why: "there is no second opinion on where a body ends",
        files: &["src"],
        except: &[
            "src/http/framing.rs",
            // The messages about malformed ones.
            "src/http/error.rs",
            // An error message of the page's server.
            "src/ui/server.rs",
            // What it never passes on.
            "src/http/trailer.rs",
            // The length of its own answers.
            "src/http/reply.rs",
            // The length of its own requests.
            "src/machine/client.rs",
            // What `--header` refuses.
            "src/cli/serve/field.rs",
        ],
        words: &[
            "content-length",
            "content_length",
            "transfer-encoding",
            "transfer_encoding",
        ],
        text: Text::Code,
    },
    Rule {
        why: "heads are tokenised in one place, where the leniencies of the tokeniser are made up for",
        files: &["src"],
        except: &["src/http/head.rs", "src/http/trailer.rs"],
        words: &["httparse"],
        text: Text::Code,
    },
    Rule {
        why: "only the command line prints; the others return values, or log",
        files: &["src"],
        except: &["src/cli"],
        words: &["println!", "print!", "dbg!", "io::stdout", "io::stderr"],
        text: Text::Code,
    },
    Rule {
        why: "a failure is a value; an `expect` proves that there is none, an `unwrap` only hopes",
        files: &["src"],
        except: &[],
        words: &[".unwrap()", ".unwrap_err()", "todo!", "unimplemented!"],
        text: Text::Code,
    },
    Rule {
        why: "no peer's bytes reach a panic",
        files: &["src/http.rs", "src/http", "src/serve.rs", "src/serve"],
        except: &[],
        words: &["panic!", "unreachable!", " assert!", " assert_eq!"],
        text: Text::Code,
    },
    Rule {
        why: "a platform is named in few files, each with its portable twin or with calls that all Unixes have",
        files: &["src"],
        except: &[
            "src/serve.rs",
            // A socket in a folder that nobody else may enter, as every Unix has them.
            "src/serve/feed/socket.rs",
            "src/serve/listen.rs",
            "src/serve/listen",
            "src/serve/peer.rs",
            "src/serve/reactor.rs",
            "src/serve/reactor",
            "src/serve/transfer.rs",
            "src/serve/transfer/splice.rs",
            "src/serve/conn.rs",
            "src/registry/json.rs",
            "src/registry/model.rs",
            "src/registry/probe.rs",
            "src/registry/project.rs",
            "src/registry/store",
            "src/machine/listeners.rs",
            "src/machine/listeners",
            "src/text/raw.rs",
            // Sockets of the file system, as every Unix has them.
            "src/machine/feeds.rs",
            "src/machine/connect.rs",
            // Whether a file could be written.
            "src/cli/doctor/checks.rs",
            // Whose process this is, and on which machine.
            "src/cli/serve/placeholders.rs",
            // A supervisor's socket, which may be an abstract one.
            "src/cli/serve/sd_notify.rs",
            // Signals and statuses of a child, as every Unix has them.
            "src/cli/run/child.rs",
            // Signals as bytes on a socket, and feeds, which are sockets of the file system, as every Unix has them.
            "src/cli/stop.rs",
            "src/ui/feeds.rs",
        ],
        words: &["target_os", "rustix::", "std::os::", "libc"],
        text: Text::Code,
    },
    Rule {
        why: "readiness is waited for in one place: what runs under it can be exchanged",
        files: &["src"],
        except: &["src/serve/reactor.rs", "src/serve/reactor"],
        words: &["async_io", "epoll::", "eventfd"],
        text: Text::Code,
    },
    Rule {
        why: "there is no unsafe code",
        files: &[
            "src",
            "tests",
            "benches",
            "fuzz/fuzz_targets",
            "fuzz/properties.rs",
        ],
        except: &["tests/it/tidy.rs"],
        words: &["unsafe"],
        text: Text::CodeAndTests,
    },
    Rule {
        why: "a test waits for what it waits for, with a deadline; a sleep is too short or too long",
        files: &["tests"],
        except: &[
            "tests/it/tidy.rs",
            // Pauses between two looks at a condition.
            "tests/it/support.rs",
            "tests/it/support",
            // How long a process has to be idle.
            "tests/it/footprint.rs",
            "tests/it/http_limits.rs",
            "tests/it/http_mix.rs",
            "tests/it/http_process.rs",
            // The pauses of an origin that stalls, too.
            "tests/it/http_soak.rs",
            "tests/it/http_streaming.rs",
            "tests/it/readme.rs",
        ],
        words: &["thread::sleep", "Timer::after", "sleep("],
        text: Text::CodeAndTests,
    },
];

#[test]
fn the_code_keeps_its_invariants() {
    let mut broken = Vec::new();
    for rule in RULES {
        let mut unused = rule.except.to_vec();
        for path in rule.files.iter().flat_map(|name| sources(name)) {
            let name = path.strip_prefix(root()).expect("it is below");
            let found = mentions(rule, &read(&path));
            if let Some(exception) = rule.except.iter().find(|except| name.starts_with(except)) {
                if !found.is_empty() {
                    unused.retain(|name| name != exception);
                }
                continue;
            }
            for (line, word) in found {
                let why = rule.why;
                broken.push(format!("{}:{line}: `{word}`: {why}", name.display()));
            }
        }
        for name in unused {
            broken.push(format!("{name}: the exception is not needed: {}", rule.why));
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

/// How often `src/` may still use words that plain technical English does without. It only goes down.
const ODD_WORDS_MAX: usize = 88;

#[test]
fn odd_words_become_fewer() {
    let odd = ["whoever", "nobody", "somebody", "whom"];
    let is_odd = |word: &&str| odd.iter().any(|odd| word.eq_ignore_ascii_case(odd));
    let mut count = 0;
    for path in sources("src") {
        let text = read(&path);
        let words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
        count += words.filter(is_odd).count();
    }
    assert!(
        count <= ODD_WORDS_MAX,
        "{count} of {odd:?} in src/, more than {ODD_WORDS_MAX}"
    );
}

#[test]
fn a_rule_sees_what_it_forbids_and_nothing_else() {
    let rule = |text| Rule {
        why: "",
        files: &[],
        except: &[],
        words: &[".Unwrap()", "rustix::"],
        text,
    };
    #[track_caller]
    fn check(why: &str, rule: &Rule, text: &str, expected: &[(usize, &str)]) {
        assert_eq!(mentions(rule, text), expected, "{why}");
    }
    let code = rule(Text::Code);
    check(
        "in any case",
        &code,
        "a\nb.unwrap();\nRUSTIX::c\n",
        &[(2, ".Unwrap()"), (3, "rustix::")],
    );
    check(
        "twice on a line",
        &code,
        "rustix::a.unwrap()",
        &[(1, ".Unwrap()"), (1, "rustix::")],
    );
    check(
        "not in comments",
        &code,
        "/// a.unwrap()\n//! rustix::\na // .unwrap()\n",
        &[],
    );
    check(
        "a URL starts no comment",
        &code,
        "\"http://a\".unwrap()",
        &[(1, ".Unwrap()")],
    );
    let with_tests = "a\n#[cfg(test)]\nmod tests {\n    b.unwrap();\n}\n";
    check("not in unit tests", &code, with_tests, &[]);
    check(
        "unless they count",
        &rule(Text::CodeAndTests),
        with_tests,
        &[(4, ".Unwrap()")],
    );
    check(
        "a test-only item is code",
        &code,
        "#[cfg(test)]\nuse a;\nb.unwrap()",
        &[(3, ".Unwrap()")],
    );
}

/// The lines of `text` that `rule` forbids, counted from 1, each with the word.
fn mentions(rule: &Rule, text: &str) -> Vec<(usize, &'static str)> {
    let code = match rule.text {
        Text::Code => without_unit_tests(text),
        Text::CodeAndTests => text,
    };
    let mut found = Vec::new();
    for (index, line) in code.lines().enumerate() {
        let line = without_comment(line).to_ascii_lowercase();
        let forbidden = rule
            .words
            .iter()
            .filter(|word| line.contains(&word.to_ascii_lowercase()));
        found.extend(forbidden.map(|word| (index + 1, *word)));
    }
    found
}

/// Unit tests stand at a file's end.
fn without_unit_tests(text: &str) -> &str {
    let starts = [
        "#[cfg(test)]\nmod tests",
        "#[cfg(test)]\npub(crate) mod tests",
    ];
    let end = starts.iter().filter_map(|start| text.find(start)).min();
    &text[..end.unwrap_or(text.len())]
}

fn without_comment(line: &str) -> &str {
    let starts_comment = |at: usize| !line[..at].ends_with(':');
    let start = line
        .match_indices("//")
        .map(|(at, _)| at)
        .find(|&at| starts_comment(at));
    &line[..start.unwrap_or(line.len())]
}

/// The Rust files at or below `name`, at least one.
fn sources(name: &str) -> Vec<PathBuf> {
    let path = root().join(name);
    assert!(path.exists(), "{name} stands in a rule and does not exist");
    let mut files = Vec::new();
    collect(path, &mut files);
    assert!(
        !files.is_empty(),
        "{name} stands in a rule and holds no source"
    );
    files
}

fn collect(path: PathBuf, files: &mut Vec<PathBuf>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("a source folder is readable") {
            collect(entry.expect("a source folder is readable").path(), files);
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        files.push(path);
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
