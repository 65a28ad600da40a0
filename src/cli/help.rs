//! The help texts, laid out from argh's description of the commands.
//!
//! argh's own layout leaves out what the options take, and wraps at a fixed column; the words are those of the structs.

use std::fmt::Write as _;

use argh::{CommandInfoWithArgs, FlagInfo, FlagInfoKind, Optionality};

/// The help of `command`, or of the whole `program`.
pub fn help(program: &CommandInfoWithArgs, command: Option<&CommandInfoWithArgs>) -> String {
    let subject = command.unwrap_or(program);
    let mut text = format!(
        "{}\n\nUsage: {}\n",
        sentence(subject.description),
        usage(program, command)
    );
    let rows = |rows: Vec<(String, &str)>, heading: &str, text: &mut String| {
        if !rows.is_empty() {
            // Writing into a String cannot fail.
            let _ = write!(text, "\n{heading}:\n");
            table(&rows, text);
        }
    };
    rows(
        subject
            .commands
            .iter()
            .map(|command| (command.name.to_owned(), command.command.description))
            .collect(),
        "Commands",
        &mut text,
    );
    rows(
        subject
            .positionals
            .iter()
            .map(|positional| (positional.name.to_owned(), positional.description))
            .collect(),
        "Arguments",
        &mut text,
    );
    rows(
        // argh puts its own `--help` first; it is expected last.
        subject
            .flags
            .iter()
            .skip(1)
            .map(|flag| (label(flag), flag.description))
            .chain([("-h, --help".to_owned(), "show this help")])
            .collect(),
        "Options",
        &mut text,
    );
    rows(
        subject
            .error_codes
            .iter()
            .map(|exit| (exit.code.to_string(), exit.description))
            .collect(),
        "Exit codes",
        &mut text,
    );
    for (heading, paragraphs) in [("Examples", subject.examples), ("Notes", subject.notes)] {
        if !paragraphs.is_empty() {
            let _ = write!(text, "\n{heading}:\n");
        }
        for line in paragraphs.iter().flat_map(|paragraph| paragraph.lines()) {
            let _ = writeln!(text, "  {}", unescaped(line));
        }
    }
    text
}

/// How a command line is written.
pub(super) fn usage(
    program: &CommandInfoWithArgs,
    command: Option<&CommandInfoWithArgs>,
) -> String {
    let Some(command) = command else {
        return format!("{} [OPTION…] COMMAND …", program.name);
    };
    let mut words = vec![program.name.to_owned(), command.name.to_owned()];
    let own = &command.flags[1..];
    if own.len() <= FLAGS_IN_USAGE_MAX {
        words.extend(own.iter().map(|flag| match (flag.short, &flag.kind) {
            (Some(short), FlagInfoKind::Switch) => format!("[-{short}]"),
            (Some(short), FlagInfoKind::Option { arg_name }) => format!("[-{short} {arg_name}]"),
            (None, FlagInfoKind::Switch) => format!("[{}]", flag.long),
            (None, FlagInfoKind::Option { arg_name }) => format!("[{} {arg_name}]", flag.long),
        }));
    } else {
        words.push("[OPTION…]".to_owned());
    }
    words.extend(
        command
            .positionals
            .iter()
            .map(|positional| match positional.optionality {
                Optionality::Required => positional.name.to_owned(),
                Optionality::Optional => format!("[{}]", positional.name),
                Optionality::Repeating | Optionality::Greedy => format!("[{}…]", positional.name),
            }),
    );
    words.join(" ")
}

/// How an option is written.
pub(super) fn label(flag: &FlagInfo<'_>) -> String {
    let mut label = match flag.short {
        Some(short) => format!("-{short}, {}", flag.long),
        None => flag.long.to_owned(),
    };
    if let FlagInfoKind::Option { arg_name } = flag.kind {
        label.push(' ');
        label.push_str(arg_name);
    }
    label
}

/// Labels on the left, as wide as the longest; descriptions on the right, wrapped.
fn table(rows: &[(String, &str)], text: &mut String) {
    let labels = rows.iter().map(|(label, _)| label.chars().count());
    let column = labels.max().unwrap_or(0) + 4;
    for (label, description) in rows {
        let mut line = format!("  {label:0$}", column - 2);
        let mut length = column;
        for word in unescaped(description).split_whitespace() {
            let word_length = word.chars().count();
            if length > column && length + word_length >= LINE_LENGTH_MAX {
                text.push_str(&line);
                text.push('\n');
                line = " ".repeat(column);
                length = column;
            }
            if length > column {
                line.push(' ');
                length += 1;
            }
            line.push_str(word);
            length += word_length;
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

/// Commands are described in half a sentence, as their table wants it.
pub(super) fn sentence(description: &str) -> String {
    let description = unescaped(description);
    let mut characters = description.chars();
    match characters.next() {
        Some(first) => {
            let rest = characters.as_str();
            let stop = if rest.ends_with('.') { "" } else { "." };
            format!("{}{rest}{stop}", first.to_uppercase())
        }
        None => String::new(),
    }
}

/// argh's texts are made for `format!`, where a brace is written twice.
pub(super) fn unescaped(text: &str) -> String {
    text.replace("{{", "{").replace("}}", "}")
}

const LINE_LENGTH_MAX: usize = 100;

/// More than these make a usage line that nobody reads.
const FLAGS_IN_USAGE_MAX: usize = 4;
