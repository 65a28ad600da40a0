//! The help texts, laid out from argh's description of the commands.
//!
//! argh's own layout does not show the values of options, and wraps at a fixed column.

use argh::{CommandInfoWithArgs, FlagInfo, FlagInfoKind, Optionality};

/// The help of `command`, or of the whole `program`, in lines of at most `columns` unless a word is longer.
pub fn help(
    program: &CommandInfoWithArgs,
    command: Option<&CommandInfoWithArgs>,
    columns: usize,
) -> String {
    let subject = command.unwrap_or(program);
    let mut text = String::new();
    wrap("", 0, &sentence(subject.description), columns, &mut text);
    text.push('\n');
    wrap("Usage: ", 7, &usage(program, command), columns, &mut text);
    commands(subject, columns, &mut text);
    let mut add = |heading: &str, rows: Vec<(String, &str)>| {
        let column = label_column(&rows, columns);
        table(heading, rows, column, columns, &mut text);
    };
    let positionals = subject.positionals.iter();
    let positionals =
        positionals.map(|positional| (positional.name.to_owned(), positional.description));
    add("Arguments", positionals.collect());
    let options = options(subject).map(|flag| (label(flag), flag.description));
    let help = [("-h, --help".to_owned(), "show this help")];
    add("Options", options.chain(help).collect());
    let exits = subject.error_codes.iter();
    let exits = exits.map(|exit| (exit.code.to_string(), exit.description));
    add("Exit codes", exits.collect());
    for (heading, paragraphs) in [("Examples", subject.examples), ("Notes", subject.notes)] {
        if !paragraphs.is_empty() {
            text.push_str(&format!("\n{heading}:\n"));
        }
        for paragraph in paragraphs {
            let paragraph = unescaped(paragraph);
            let lines = match heading {
                "Notes" => unbroken(&paragraph),
                _ => paragraph.lines().map(str::to_owned).collect(),
            };
            for line in lines {
                let start = line.len() - line.trim_start().len();
                let start = format!("  {}", &line[..start]);
                let is_prose = heading == "Notes" && !line.contains("  ");
                let indent = start.len() + if is_prose { 0 } else { 2 };
                wrap(&start, indent, &line, columns, &mut text);
            }
        }
    }
    text
}

/// The commands in groups. Those that [`GROUPS`] leaves out, which are none of the program's, follow without one.
fn commands(subject: &CommandInfoWithArgs, columns: usize, text: &mut String) {
    let row = |name: &str| {
        let mut commands = subject.commands.iter();
        let found = commands.find(|command| command.name == name)?;
        Some((found.name.to_owned(), found.command.description))
    };
    let all: Vec<_> = subject
        .commands
        .iter()
        .filter_map(|it| row(it.name))
        .collect();
    let column = label_column(&all, columns);
    for (heading, names) in GROUPS {
        let rows = names.iter().filter_map(|name| row(name)).collect();
        table(heading, rows, column, columns, text);
    }
    let is_grouped = |name: &str| GROUPS.iter().any(|(_, names)| names.contains(&name));
    let others = all.into_iter().filter(|(name, _)| !is_grouped(name));
    table("Other commands", others.collect(), column, columns, text);
}

/// What is used every day comes first.
const GROUPS: &[(&str, &[&str])] = &[
    (
        "Commands",
        &[
            "serve", "run", "env", "status", "tail", "ui", "list", "show",
        ],
    ),
    (
        "Ports and settings of projects",
        &[
            "allocate", "set", "move", "remove", "check", "suggest", "prune", "export", "import",
            "reset",
        ],
    ),
    (
        "Interceptors",
        &["stop", "service", "health", "doctor", "mock"],
    ),
    ("Clients and shells", &["snippet", "completions", "man"]),
];

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

/// Where descriptions begin: behind the longest label, or where that leaves too little room, below the labels.
fn label_column(rows: &[(String, &str)], columns: usize) -> usize {
    let labels = rows.iter().map(|(label, _)| label.chars().count());
    match labels.max().unwrap_or_default() + 4 {
        column if column > columns / 2 => 8,
        column => column,
    }
}

/// A heading, then labels on the left and wrapped descriptions on the right. Nothing without rows.
fn table(
    heading: &str,
    rows: Vec<(String, &str)>,
    column: usize,
    columns: usize,
    text: &mut String,
) {
    if !rows.is_empty() {
        text.push_str(&format!("\n{heading}:\n"));
    }
    for (label, description) in rows {
        let mut start = format!("  {label:0$}", column - 2);
        if start.chars().count() > column {
            text.push_str(&format!("{start}\n"));
            start = " ".repeat(column);
        }
        wrap(&start, column, &unescaped(description), columns, text);
    }
}

/// Adds `words` behind `start`, and in further lines of at most `columns` behind `indent` spaces. Runs of spaces stay.
pub fn wrap(start: &str, indent: usize, words: &str, columns: usize, text: &mut String) {
    let mut line = start.to_owned();
    let mut length = start.chars().count();
    let first = length;
    for word in words.trim().split_inclusive(' ') {
        let word_length = word.trim_end().chars().count();
        if length > first.max(indent) && length + word_length > columns {
            text.push_str(line.trim_end());
            text.push('\n');
            line = " ".repeat(indent);
            length = indent;
        }
        line.push_str(word);
        length += word.chars().count();
    }
    text.push_str(line.trim_end());
    text.push('\n');
}

/// The lines of a paragraph, where one that was broken because it was full continues.
fn unbroken(paragraph: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut last_length = 0;
    for line in paragraph.lines() {
        let first_word = line.split(' ').next().unwrap_or_default().chars().count();
        let is_continued = last_length + first_word >= FULL_LINE;
        match lines.last_mut().filter(|_| is_continued && first_word > 0) {
            Some(last) => last.extend([" ", line]),
            None => lines.push(line.to_owned()),
        }
        last_length = line.chars().count();
    }
    lines
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

/// Notes are written in lines of at most 98 columns: one that the next word would have made longer than this was broken.
const FULL_LINE: usize = 90;

/// More options than these make the usage line too long to read.
const FLAGS_IN_USAGE_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use argh::ArgsInfo as _;

    use super::*;

    #[test]
    fn every_command_is_in_one_group() {
        let program = crate::cli::CommandLine::get_args_info();
        let mut names: Vec<&str> = program.commands.iter().map(|it| it.name).collect();
        let mut grouped: Vec<&str> = GROUPS
            .iter()
            .flat_map(|(_, names)| *names)
            .copied()
            .collect();
        names.sort_unstable();
        grouped.sort_unstable();
        assert_eq!(grouped, names);
    }

    #[test]
    fn lines_are_broken_between_words() {
        #[track_caller]
        fn check(words: &str, columns: usize, expected: &str) {
            let mut text = String::new();
            wrap("  -n  ", 6, words, columns, &mut text);
            assert_eq!(text, expected);
        }
        check("some words here", 80, "  -n  some words here\n");
        check("some words here", 21, "  -n  some words here\n");
        check("some words here", 20, "  -n  some words\n      here\n");
        check(
            "some words here",
            8,
            "  -n  some\n      words\n      here\n",
        );
        check("", 8, "  -n\n");
        let long = format!("{} end of a line\nnext", "word ".repeat(15));
        assert_eq!(unbroken(&long).len(), 1);
        assert_eq!(unbroken("short\nnext\n  indented").len(), 3);
    }
}
