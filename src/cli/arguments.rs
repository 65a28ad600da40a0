//! Parses the arguments of the process with argh, and turns its errors into one line.
//!
//! A pass before argh adds what argh lacks: `--name=value`, arguments that are not UTF-8, `-` as a value, global options
//! and `--help` before or after the command, and errors that say what to do next. It takes the options from argh's description of the
//! structs, so there is no second list of them.
//!
//! What the values mean is decided in `settings` and in the commands.

use std::ffi::OsString;

use argh::{ArgsInfo, CommandInfoWithArgs, FlagInfo, FlagInfoKind, FromArgs, Optionality};

use super::help;
use crate::text::raw;

/// A parsed command line.
#[derive(Debug, PartialEq)]
pub enum Parsed<T> {
    /// A command.
    Command(T),
    /// A request for the help of a command, or without a name of the whole program.
    Help(Option<&'static str>),
}

/// Parses `arguments`, without the program's name.
///
/// # Errors
///
/// One line that names the invalid argument and says where to look.
pub fn parse<T: FromArgs + ArgsInfo>(
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<Parsed<T>, String> {
    let program = description::<T>();
    let mut line = Line {
        program: &program,
        command: None,
        given: Vec::new(),
        words: Vec::new(),
    };
    let words = arguments.into_iter().map(|word| raw::to_text(&word));
    if line.normalize(words)? {
        return Ok(Parsed::Help(line.command.map(|command| command.name)));
    }
    let words: Vec<&str> = line.words.iter().map(String::as_str).collect();
    T::from_args(&[program.name], &words)
        .map(Parsed::Command)
        .map_err(|exit| line.one_line(&exit.output))
}

/// The help of a command, or without a name of the whole program, in lines of at most `columns`.
pub fn help<T: ArgsInfo>(command: Option<&str>, columns: usize) -> String {
    let program = description::<T>();
    let mut commands = program.commands.iter();
    let command = command.and_then(|name| commands.find(|command| command.name == name));
    help::help(&program, command.map(|command| &command.command), columns)
}

/// argh's description of the whole program.
pub(super) fn description<T: ArgsInfo>() -> CommandInfoWithArgs {
    CommandInfoWithArgs {
        // argh uses the name of the struct.
        name: PROGRAM,
        ..T::get_args_info()
    }
}

/// A command line, as far as it has been read.
struct Line<'a> {
    program: &'a CommandInfoWithArgs,
    command: Option<&'a CommandInfoWithArgs>,
    /// The long names of the options so far.
    given: Vec<&'static str>,
    /// What argh is to parse: the global options, then everything else.
    words: Vec<String>,
}

impl<'a> Line<'a> {
    /// Writes each word in the form that argh accepts, and reports the errors for which argh's message is not good enough.
    /// Returns whether help is requested, for the command if there is one.
    fn normalize(&mut self, mut words: impl Iterator<Item = String>) -> Result<bool, String> {
        while let Some(word) = words.next() {
            match word.as_str() {
                "-h" | "--help" => {
                    self.command = self
                        .command
                        .or_else(|| words.find_map(|word| self.command_named(&word)));
                    return Ok(true);
                }
                // `ic help serve` is `ic serve --help`.
                "help" if self.command.is_none() => {
                    let command = words.find(|word| !word.starts_with('-') && word != "help");
                    if let Some(command) = command {
                        self.enter(&command)?;
                    }
                    return Ok(true);
                }
                // argh treats a lone dash as an option; written as a carried byte ([`raw`]) it is a value.
                "-" => self.words.push(format!("{}2d", raw::MARK)),
                _ if word.starts_with('-') && word != "--" => {
                    self.read_option(&word, &mut words)?
                }
                _ => {
                    // The rest is another program's command line.
                    let is_last = word == "--" || self.command.is_some_and(takes_a_command_line);
                    if !is_last && self.command.is_none() {
                        self.enter(&word)?;
                    }
                    self.words.push(word);
                    if is_last {
                        self.words.extend(words);
                        break;
                    }
                }
            }
        }
        Ok(false)
    }

    /// Reads the option that `word` spells, and its value, which may be the next of `words`.
    fn read_option(
        &mut self,
        word: &str,
        words: &mut impl Iterator<Item = String>,
    ) -> Result<(), String> {
        let (name, value) = self.name_and_value(word);
        let see = self.see();
        let option = self.find_option(name).ok_or_else(|| {
            let known = self.options().map(|option| option.long);
            let next = did_you_mean(name, known).unwrap_or_else(|| self.behind_dashes(&see));
            format!("`{}` has no option `{name}`; {next}", self.name())
        })?;
        let value = match (&option.kind, value) {
            (FlagInfoKind::Switch, None) => None,
            (FlagInfoKind::Switch, Some(_)) => {
                return Err(format!("`{name}` takes no value; {see}"));
            }
            (FlagInfoKind::Option { .. }, _)
                if self.given.contains(&option.long)
                    && option.optionality != Optionality::Repeating =>
            {
                return Err(format!("`{name}` is given more than once; {see}"));
            }
            (FlagInfoKind::Option { .. }, Some(value)) => Some(value.to_owned()),
            (FlagInfoKind::Option { arg_name }, None) => Some(
                words
                    .next()
                    .ok_or_else(|| format!("`{name}` needs a value: `{name} {arg_name}`; {see}"))?,
            ),
        };
        self.given.push(option.long);
        // argh accepts the global options only before the command.
        let is_global = self
            .program
            .flags
            .iter()
            .any(|flag| flag.long == option.long);
        let at = if is_global { 0 } else { self.words.len() };
        let words = [name.to_owned()].into_iter().chain(value);
        self.words.splice(at..at, words);
        Ok(())
    }

    /// Splits `--name=value`, and `-n3` or `-n=3` if `-n` takes a value.
    fn name_and_value<'w>(&self, word: &'w str) -> (&'w str, Option<&'w str>) {
        if word.starts_with("--") {
            return match word.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (word, None),
            };
        }
        let end = word.char_indices().nth(2).map_or(word.len(), |(at, _)| at);
        let (letter, value) = word.split_at(end);
        let option = self.find_option(letter);
        let takes_value =
            option.is_some_and(|option| matches!(option.kind, FlagInfoKind::Option { .. }));
        if value.is_empty() || !takes_value {
            return (word, None);
        }
        (letter, Some(value.strip_prefix('=').unwrap_or(value)))
    }

    /// The option `name` (`--json`, `-q`), if it is valid here.
    fn find_option(&self, name: &str) -> Option<&'static FlagInfo<'static>> {
        let letter = name.strip_prefix('-').and_then(|rest| rest.parse().ok());
        self.options()
            .find(|option| option.long == name || (letter.is_some() && option.short == letter))
    }

    /// The options of the command and the global ones.
    fn options(&self) -> impl Iterator<Item = &'static FlagInfo<'static>> {
        let of_command = self.command.map_or(&[][..], |command| command.flags);
        of_command.iter().chain(self.program.flags)
    }

    fn command_named(&self, word: &str) -> Option<&'a CommandInfoWithArgs> {
        let mut commands = self.program.commands.iter();
        let found = commands.find(|command| command.name == word);
        found.map(|command| &command.command)
    }

    fn enter(&mut self, word: &str) -> Result<(), String> {
        self.command = self.command_named(word);
        if self.command.is_none() {
            let known = self.program.commands.iter().map(|command| command.name);
            let next = did_you_mean(word, known).unwrap_or_else(|| self.see());
            return Err(format!("there is no command `{word}`; {next}"));
        }
        Ok(())
    }

    /// argh's message, for too few or too many arguments, as one line.
    fn one_line(&self, output: &str) -> String {
        let (command, see) = (self.name(), self.see());
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let output = output.trim();
        if let Some(missing) = output.strip_prefix("Required positional arguments not provided:") {
            return format!("`{command}` needs {}; {see}", words(missing));
        }
        if let Some(word) = output.strip_prefix("Unrecognized argument: ") {
            return format!("unexpected argument `{word}` for `{command}`; {see}");
        }
        format!("{}; {see}", words(output))
    }

    /// The program, or the program and its command.
    fn name(&self) -> String {
        match self.command {
            Some(command) => format!("{} {}", self.program.name, command.name),
            None => self.program.name.to_owned(),
        }
    }

    /// Where options go that are not those of the command itself; otherwise `see`.
    fn behind_dashes(&self, see: &str) -> String {
        let positionals = self.command.map_or(&[][..], |command| command.positionals);
        match positionals.last().map(|last| last.name) {
            Some(name) if name.starts_with("-- ") => "give other options behind `--`".to_owned(),
            _ => see.to_owned(),
        }
    }

    fn see(&self) -> String {
        format!("see `{} --help`", self.name())
    }
}

fn takes_a_command_line(command: &CommandInfoWithArgs) -> bool {
    let last = command.positionals.last();
    last.is_some_and(|positional| positional.optionality == Optionality::Greedy)
}

/// `did you mean …?` if one of `known` is similar enough for `word` to be a typing error.
fn did_you_mean<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    // One error for every three letters, and more than half of the name must be right.
    let distance_max = word.chars().count().div_ceil(3);
    known
        .map(|name| (distance(word, name), word.len().abs_diff(name.len()), name))
        .filter(|&(distance, _, name)| {
            distance <= distance_max && distance < name.len().div_ceil(2)
        })
        .min()
        .map(|(.., name)| format!("did you mean `{name}`?"))
}

/// The Levenshtein distance.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

const PROGRAM: &str = "ic";

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    /// A program for these tests.
    #[derive(FromArgs, ArgsInfo, Debug, PartialEq)]
    #[argh(help_triggers("-h", "--help"))]
    struct Program {
        /// a file
        #[argh(option, arg_name = "FILE")]
        registry: Option<String>,
        /// a version
        #[argh(switch, short = 'V')]
        version: bool,
        #[argh(subcommand)]
        command: Option<Commands>,
    }

    #[derive(FromArgs, ArgsInfo, Debug, PartialEq)]
    #[argh(subcommand)]
    enum Commands {
        Serve(Serve),
        Check(Check),
    }

    /// serve things
    #[derive(FromArgs, ArgsInfo, Debug, PartialEq, Default)]
    #[argh(subcommand, name = "serve", help_triggers("-h", "--help"))]
    struct Serve {
        /// a field
        #[argh(option, arg_name = "FIELD")]
        header: Vec<String>,
        /// an id, such as {{project}}
        #[argh(option, short = 'i', arg_name = "ID")]
        instance_id: Option<String>,
        /// a folder
        #[argh(positional, arg_name = "PATH")]
        path: Option<String>,
    }

    /// check things
    #[derive(FromArgs, ArgsInfo, Debug, PartialEq, Default)]
    #[argh(subcommand, name = "check", help_triggers("-h", "--help"))]
    struct Check {
        /// a port
        #[argh(positional, arg_name = "PORT")]
        port: String,
    }

    fn asked(words: &[&str]) -> Result<Parsed<Program>, String> {
        parse(words.iter().map(OsString::from))
    }

    #[track_caller]
    fn check_serve(words: &[&str], expected: Serve) {
        let Ok(Parsed::Command(program)) = asked(words) else {
            panic!("{words:?}: {:?}", asked(words));
        };
        assert_eq!(
            program.command,
            Some(Commands::Serve(expected)),
            "{words:?}"
        );
    }

    #[test]
    fn options_take_their_values_in_every_spelling() {
        let with_id = |id: &str| Serve {
            instance_id: Some(id.to_owned()),
            ..Serve::default()
        };
        check_serve(&["serve", "--instance-id", "a"], with_id("a"));
        check_serve(&["serve", "--instance-id=a"], with_id("a"));
        check_serve(&["serve", "-i", "a"], with_id("a"));
        check_serve(&["serve", "-ia"], with_id("a"));
        check_serve(&["serve", "-i=a"], with_id("a"));
        check_serve(&["serve", "-i-1"], with_id("-1"));
        check_serve(&["serve", "-i="], with_id(""));
        check_serve(&["serve", "-iÜ=1"], with_id("Ü=1"));
        check_serve(&["serve", "--instance-id="], with_id(""));
        check_serve(&["serve", "--instance-id=a=b"], with_id("a=b"));
        // What stands in the place of a value is one, whatever it looks like.
        check_serve(
            &["serve", "--instance-id", "--header=x"],
            with_id("--header=x"),
        );
        check_serve(&["serve", "--instance-id", "-h"], with_id("-h"));
        check_serve(&["serve", "--instance-id", "--"], with_id("--"));
        check_serve(&["--registry", "serve", "serve", "-i", "a"], with_id("a"));
        check_serve(
            &["serve", "--header", "a: b", "--header=c: d=e"],
            Serve {
                header: vec!["a: b".into(), "c: d=e".into()],
                ..Serve::default()
            },
        );
    }

    #[test]
    fn global_options_stand_anywhere_before_two_dashes() {
        #[track_caller]
        fn check(words: &[&str], path: Option<&str>) {
            let serve = Serve {
                path: path.map(str::to_owned),
                ..Serve::default()
            };
            let program = Program {
                registry: Some("f".to_owned()),
                version: false,
                command: Some(Commands::Serve(serve)),
            };
            assert_eq!(asked(words), Ok(Parsed::Command(program)), "{words:?}");
        }
        check(&["--registry", "f", "serve"], None);
        check(&["serve", "--registry", "f"], None);
        check(&["serve", "a", "--registry=f"], Some("a"));
        check(&["serve", "--registry", "f", "a"], Some("a"));
        check(&["serve", "--registry", "f", "--", "-V"], Some("-V"));
        let Ok(Parsed::Command(program)) = asked(&["serve", "--", "--registry"]) else {
            panic!("not accepted");
        };
        assert_eq!(program.registry, None);
    }

    #[test]
    fn words_that_look_like_options_can_be_values() {
        let with_path = |path: &str| Serve {
            path: Some(path.to_owned()),
            ..Serve::default()
        };
        check_serve(&["serve", "help"], with_path("help"));
        check_serve(&["serve", "--", "--help"], with_path("--help"));
        check_serve(&["serve", "--", "--a=b"], with_path("--a=b"));
        check_serve(&["--", "serve", "dir"], with_path("dir"));
        check_serve(&["serve", "-"], with_path("\x002d"));
        assert_eq!(raw::from_text("\x002d"), "-");
    }

    #[test]
    fn an_argument_of_any_bytes_arrives() {
        let words = ["serve".into(), OsString::from_vec(b"caf\xe9".to_vec())];
        let Ok(Parsed::Command(Program {
            command: Some(Commands::Serve(serve)),
            ..
        })) = parse::<Program>(words)
        else {
            panic!("not understood");
        };
        let path = raw::from_text(&serve.path.expect("a path"));
        assert_eq!(path.into_vec(), b"caf\xe9");
    }

    #[test]
    fn a_line_that_cannot_be_understood_is_named_with_the_way_out() {
        #[track_caller]
        fn check(words: &[&str], expected: &str) {
            assert_eq!(asked(words), Err(expected.to_owned()), "{words:?}");
        }
        check(&["xyz"], "there is no command `xyz`; see `ic --help`");
        check(
            &["help", "xyz"],
            "there is no command `xyz`; see `ic --help`",
        );
        check(
            &["sevre"],
            "there is no command `sevre`; did you mean `serve`?",
        );
        check(
            &["chek"],
            "there is no command `chek`; did you mean `check`?",
        );
        check(&["s"], "there is no command `s`; see `ic --help`");
        check(&[""], "there is no command ``; see `ic --help`");
        check(&["-x"], "`ic` has no option `-x`; see `ic --help`");
        check(
            &["serve", "--heder=x"],
            "`ic serve` has no option `--heder`; did you mean `--header`?",
        );
        check(
            &["serve", "-xa"],
            "`ic serve` has no option `-xa`; see `ic serve --help`",
        );
        check(
            &["--registry", "f", "serve", "--registry", "f"],
            "`--registry` is given more than once; see `ic serve --help`",
        );
        check(
            &["serve", "--regstry", "f"],
            "`ic serve` has no option `--regstry`; did you mean `--registry`?",
        );
        check(&["-Vq"], "`ic` has no option `-Vq`; see `ic --help`");
        check(
            &["serve", "--header"],
            "`--header` needs a value: `--header FIELD`; see `ic serve --help`",
        );
        check(
            &["--version=1"],
            "`--version` takes no value; see `ic --help`",
        );
        check(
            &["serve", "-i", "a", "--instance-id", "b"],
            "`--instance-id` is given more than once; see `ic serve --help`",
        );
        check(&["check"], "`ic check` needs PORT; see `ic check --help`");
        check(
            &["check", "1", "2"],
            "unexpected argument `2` for `ic check`; see `ic check --help`",
        );
        check(
            &["check", "help", "x"],
            "unexpected argument `x` for `ic check`; see `ic check --help`",
        );
        let long = "serve".repeat(10_000);
        check(
            &[&long],
            &format!("there is no command `{long}`; see `ic --help`"),
        );
    }

    #[test]
    fn help_is_found_on_either_side_of_the_command() {
        #[track_caller]
        fn check(words: &[&str], first_usage: &str) {
            let Ok(Parsed::Help(command)) = asked(words) else {
                panic!("{words:?}: {:?}", asked(words));
            };
            let text = help::<Program>(command, 100);
            let usage = text.lines().find(|line| line.starts_with("Usage"));
            assert_eq!(usage, Some(first_usage), "{words:?}");
        }
        let (program, serve) = (
            "Usage: ic [OPTION…] COMMAND …",
            "Usage: ic serve [--header FIELD] [-i ID] [PATH]",
        );
        check(&["--help"], program);
        check(&["-h"], program);
        check(&["help"], program);
        check(&["help", "serve"], serve);
        check(&["help", "--help"], program);
        check(&["help", "help"], program);
        check(&["-V", "--help", "--registry"], program);
        check(&["serve", "--help"], serve);
        check(&["serve", "-h", "--nonsense"], serve);
        check(&["--help", "serve"], serve);
        check(&["--help", "--registry", "x", "serve"], serve);
        check(&["check", "--help"], "Usage: ic check PORT");
    }
}
