//! The help texts, laid out from argh's description of the commands.
//!
//! argh's own layout does not show the values of options, and wraps at a fixed column.

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
    let commands = subject.commands.iter();
    let commands = commands.map(|command| (command.name.to_owned(), command.command.description));
    table("Commands", commands, &mut text);
    let positionals = subject.positionals.iter();
    let positionals =
        positionals.map(|positional| (positional.name.to_owned(), positional.description));
    table("Arguments", positionals, &mut text);
    let options = options(subject).map(|flag| (label(flag), flag.description));
    let help = [("-h, --help".to_owned(), "show this help")];
    table("Options", options.chain(help), &mut text);
    let exits = subject.error_codes.iter();
    let exits = exits.map(|exit| (exit.code.to_string(), exit.description));
    table("Exit codes", exits, &mut text);
    for (heading, paragraphs) in [("Examples", subject.examples), ("Notes", subject.notes)] {
        if !paragraphs.is_empty() {
            // Writing into a String cannot fail.
            let _ = write!(text, "\n{heading}:\n");
        }
        for line in paragraphs.iter().flat_map(|paragraph| paragraph.lines()) {
            let _ = writeln!(text, "  {}", unescaped(line));
        }
    }
    text
}

/// The options of a command that are shown: without argh's own `--help`, which it puts first, and without hidden ones.
pub(super) fn options(
    command: &CommandInfoWithArgs,
) -> impl Iterator<Item = &'static FlagInfo<'static>> {
    command.flags.iter().skip(1).filter(|flag| !flag.hidden)
}

/// The usage line, without `Usage: `.
pub(super) fn usage(
    program: &CommandInfoWithArgs,
    command: Option<&CommandInfoWithArgs>,
) -> String {
    let Some(command) = command else {
        return format!("{} [OPTION…] COMMAND …", program.name);
    };
    let mut words = vec![program.name.to_owned(), command.name.to_owned()];
    if options(command).count() <= FLAGS_IN_USAGE_MAX {
        words.extend(options(command).map(|flag| match (flag.short, &flag.kind) {
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

/// An option with its spellings and its value: `-n, --count N`.
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

/// A heading, then labels on the left, as wide as the longest, and wrapped descriptions on the right. Nothing without rows.
fn table<'a>(heading: &str, rows: impl Iterator<Item = (String, &'a str)>, text: &mut String) {
    let rows: Vec<_> = rows.collect();
    let labels = rows.iter().map(|(label, _)| label.chars().count());
    let Some(label_length) = labels.max() else {
        return;
    };
    let column = label_length + 4;
    let _ = write!(text, "\n{heading}:\n");
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

/// A description, which begins in lower case for argh, as a sentence.
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

/// argh's texts are format strings, in which a brace is written twice.
pub(super) fn unescaped(text: &str) -> String {
    text.replace("{{", "{").replace("}}", "}")
}

const LINE_LENGTH_MAX: usize = 100;

/// More options than these make the usage line too long to read.
const FLAGS_IN_USAGE_MAX: usize = 4;
