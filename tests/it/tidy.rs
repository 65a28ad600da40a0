//! The invariants of `src/lib.rs`, as far as the source text can show them.
//!
//! A rule lists words that some files must not contain, and the reason. Comments are ignored, and so are unit tests unless the
//! rule includes them. A file or folder in a rule must exist, and an exception must be needed.

/// Imports between files: no circles, and no layer imports one above it.
mod imports;

use std::fs;
use std::path::{Path, PathBuf};

struct Rule {
    why: &'static str,
    /// Files, and folders with all files below them.
    files: &'static [&'static str],
    /// Files and folders among them that may contain the words.
    except: &'static [&'static str],
    /// The forbidden words, compared case-insensitively.
    words: &'static [&'static str],
    text: Text,
}

/// The part of a file that is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Text {
    /// Neither comments nor unit tests.
    Code,
    /// All except comments.
    CodeAndTests,
}

const RULES: &[Rule] = &[
    Rule {
        why: "http is pure: no I/O, no waiting, no clock, no threads, no log, and no crate except httparse, so it can be fuzzed directly",
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
        why: "serve and registry are independent: an interceptor does not know the project of its port",
        files: &["src/serve.rs", "src/serve"],
        except: &[],
        words: &["crate::registry", "crate::cli"],
        text: Text::CodeAndTests,
    },
    Rule {
        why: "serve and registry are independent: the registry does not know what runs on a port",
        files: &["src/registry.rs", "src/registry"],
        except: &[],
        words: &["crate::serve", "crate::http", "crate::cli"],
        text: Text::CodeAndTests,
    },
    Rule {
        why: "machine imports neither the commands and the page that use it, nor the registry",
        files: &["src/machine.rs", "src/machine"],
        except: &[],
        words: &["crate::cli", "crate::ui", "crate::registry", "crate::mock"],
        text: Text::CodeAndTests,
    },
    Rule {
        why: "only one module decides where a body ends",
        files: &["src"],
        except: &[
            "src/http/framing.rs",
            // Error messages.
            "src/http/error.rs",
            // An error message of the page's server.
            "src/ui/server.rs",
            // Trailer fields that are not forwarded.
            "src/http/trailer.rs",
            // The length of the interceptor's own responses.
            "src/http/reply.rs",
            // The length of the client's own requests.
            "src/machine/client.rs",
            // The length of a request that is sent again.
            "src/ui/send.rs",
            // Fields that `--header` refuses.
            "src/cli/field.rs",
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
        why: "heads are tokenised in one place, which also refuses what the tokeniser tolerates",
        files: &["src"],
        except: &["src/http/head.rs"],
        words: &["httparse"],
        text: Text::Code,
    },
    Rule {
        why: "only the command line prints; other modules return values, or log",
        files: &["src"],
        except: &["src/cli"],
        words: &["println!", "print!", "dbg!", "io::stdout", "io::stderr"],
        text: Text::Code,
    },
    Rule {
        why: "a failure is a value; the message of an `expect` proves that it cannot fail, an `unwrap` has no proof",
        files: &["src"],
        except: &[],
        words: &[".unwrap()", ".unwrap_err()", "todo!", "unimplemented!"],
        text: Text::Code,
    },
    Rule {
        why: "bytes of a peer must not cause a panic",
        files: &["src/http.rs", "src/http", "src/serve.rs", "src/serve"],
        except: &[],
        words: &["panic!", "unreachable!", " assert!", " assert_eq!"],
        text: Text::Code,
    },
    Rule {
        why: "platform code is in few files, each with a portable version or with calls of every Unix",
        files: &["src"],
        except: &[
            "src/serve/signals.rs",
            "src/serve/descriptors.rs",
            // A socket in a private folder, on every Unix.
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
            // Unix sockets, on every Unix.
            "src/machine/process.rs",
            "src/machine/feeds.rs",
            "src/machine/connect.rs",
            // Whether a file is writable.
            "src/cli/doctor/checks.rs",
            // The user and the name of the machine.
            "src/cli/placeholders.rs",
            // The socket of a supervisor, which may be abstract.
            "src/cli/serve/sd_notify.rs",
            // Whether standard error is the journal.
            "src/cli/logging.rs",
            // One service manager for each system, and the user that it is for.
            "src/cli/service.rs",
            "src/cli/service",
            // Signals and exit statuses of children, on every Unix.
            "src/cli/run",
            // A file that only this user can read, on every Unix.
            "src/ui/auth.rs",
            // Signals as bytes on a socket, and a folder that is watched.
            "src/cli/signals.rs",
            // The size of a terminal, on every Unix.
            "src/cli/terminal.rs",
            "src/cli/serve/all/watch.rs",
            "src/cli/serve/all/watch",
        ],
        words: &["target_os", "rustix::", "std::os::", "libc"],
        text: Text::Code,
    },
    Rule {
        why: "only the reactor waits for readiness, so it can be replaced",
        files: &["src"],
        except: &["src/serve/reactor"],
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
        why: "a test waits for a condition, with a deadline; a sleep is too short or too long",
        files: &["tests"],
        except: &[
            "tests/it/tidy.rs",
            // Pauses between two checks of a condition.
            "tests/it/support.rs",
            "tests/it/support",
            // Periods in which a process must be idle.
            "tests/it/footprint.rs",
            "tests/it/http_limits.rs",
            "tests/it/http_mix.rs",
            "tests/it/http_process.rs",
            // Also the pauses of an origin that stalls.
            "tests/it/cli_doctor_streams.rs",
            "tests/it/http_soak.rs",
            "tests/it/cli_all/soak.rs",
            "tests/it/http_streaming.rs",
            "tests/it/readme.rs",
        ],
        words: &["thread::sleep", "Timer::after", "sleep("],
        text: Text::CodeAndTests,
    },
];

/// Files that only unit tests are built from.
const TESTS_IN_SRC: &[&str] = &[
    "src/serve/simulation.rs",
    "src/serve/simulation",
    "src/serve/reactor/switch.rs",
];

#[test]
fn the_code_keeps_its_invariants() {
    let mut broken = Vec::new();
    for rule in RULES {
        let mut unused = rule.except.to_vec();
        for path in rule.files.iter().flat_map(|name| sources(name)) {
            let name = path
                .strip_prefix(root())
                .expect("every source is below the root");
            if rule.text == Text::Code && TESTS_IN_SRC.iter().any(|test| name.starts_with(test)) {
                continue;
            }
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

#[test]
fn the_source_uses_no_words_that_personify_programs() {
    let odd = ["whoever", "nobody", "somebody", "whom"];
    let is_odd = |word: &&str| odd.iter().any(|odd| word.eq_ignore_ascii_case(odd));
    let mut found = Vec::new();
    for path in sources("src") {
        for (index, line) in read(&path).lines().enumerate() {
            let words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
            let place = |word| format!("{}:{}: `{word}`", path.display(), index + 1);
            found.extend(words.filter(is_odd).map(place));
        }
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn a_rule_finds_exactly_its_words() {
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
        "a URL is not a comment",
        &code,
        "\"http://a\".unwrap()",
        &[(1, ".Unwrap()")],
    );
    let with_tests = "a\n#[cfg(test)]\nmod tests {\n    b.unwrap();\n}\n";
    check("not in unit tests", &code, with_tests, &[]);
    check(
        "unless the rule includes them",
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

/// Removes the unit tests, which are at the end of a file.
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
    assert!(path.exists(), "{name} is in a rule but does not exist");
    let mut files = Vec::new();
    collect(path, &mut files);
    assert!(
        !files.is_empty(),
        "{name} is in a rule but contains no source"
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
