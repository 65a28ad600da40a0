//! The syntax by which each shell sets an environment variable.

/// A family of shells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shell {
    /// POSIX `sh` and its descendants: bash, zsh, dash, ksh.
    Sh,
    /// fish.
    Fish,
    /// PowerShell, on every system.
    Power,
    /// A file of variables, as Docker, Compose and the dotenv libraries read it.
    Dotenv,
}

impl Shell {
    /// A line that sets `name`, which needs no quoting, to any `value`. In shells whose substitution joins lines (fish,
    /// PowerShell) it ends with `;`.
    pub fn assignment(self, name: &str, value: &str) -> String {
        match self {
            Shell::Sh => format!("export {name}={}", word(value)),
            // As in fish; not every reader has escapes, but no usual value needs quotes.
            Shell::Dotenv => format!("{name}={}", quoted(value, &[('\\', "\\\\"), ('\'', "\\'")])),
            // In its single quotes a backslash escapes both.
            Shell::Fish => format!(
                "set -gx {name} {};",
                quoted(value, &[('\\', "\\\\"), ('\'', "\\'")])
            ),
            Shell::Power => {
                let mut literal = String::from("'");
                for character in value.chars() {
                    // PowerShell treats each of these as a single quote (about_Quoting_Rules).
                    if matches!(character, '\'' | '\u{2018}'..='\u{201b}') {
                        literal.push(character);
                    }
                    literal.push(character);
                }
                format!("$env:{name} = {literal}';")
            }
        }
    }
}

/// A value as one word of a command line of `sh`.
pub fn word(value: &str) -> String {
    quoted(value, &[('\'', "'\\''")])
}

/// `value` unchanged if no shell treats any of it specially; otherwise in single quotes, with `escapes` replaced.
fn quoted(value: &str, escapes: &[(char, &str)]) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/:.,-_".contains(c);
    if !value.is_empty() && value.chars().all(is_plain) {
        return value.to_owned();
    }
    let mut literal = String::from("'");
    for character in value.chars() {
        match escapes.iter().find(|(escaped, _)| *escaped == character) {
            Some((_, written)) => literal.push_str(written),
            None => literal.push(character),
        }
    }
    literal.push('\'');
    literal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip] // A table.
    fn every_value_reaches_the_shell_unchanged() {
        #[track_caller]
        fn check(value: &str, sh: &str, fish: &str, powershell: &str) {
            assert_eq!(Shell::Sh.assignment("A", value), format!("export A={sh}"));
            assert_eq!(Shell::Fish.assignment("A", value), format!("set -gx A {fish};"));
            assert_eq!(Shell::Dotenv.assignment("A", value), format!("A={fish}"));
            assert_eq!(Shell::Power.assignment("A", value), format!("$env:A = {powershell};"));
        }
        check("http://localhost:8888/v1", "http://localhost:8888/v1", "http://localhost:8888/v1", "'http://localhost:8888/v1'");
        check("a,::1", "a,::1", "a,::1", "'a,::1'");
        check("", "''", "''", "''");
        check("*", "'*'", "'*'", "'*'");
        check("~", "'~'", "'~'", "'~'");
        check("a b;c", "'a b;c'", "'a b;c'", "'a b;c'");
        check("$(id)`id`", "'$(id)`id`'", "'$(id)`id`'", "'$(id)`id`'");
        check("it's", r"'it'\''s'", r"'it\'s'", "'it''s'");
        check(r"a\b", r"'a\b'", r"'a\\b'", r"'a\b'");
        check("a\u{2019}b", "'a\u{2019}b'", "'a\u{2019}b'", "'a\u{2019}\u{2019}b'");
        check("\"", "'\"'", "'\"'", "'\"'");
    }
}
