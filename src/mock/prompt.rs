//! What a conversation asks for, and the reply, whatever API carries them.
//!
//! Decided here: the last turn decides. Where it is a prompt of the user that says `use the tool NAME`, and that tool is
//! offered, the reply is a call of it; a JSON object after the name gives its arguments, others are made up from the schema.
//! Otherwise the reply is a short text: the identification, and at most one line of the prompt. More would be dangerous: clients
//! find edits of files and commands in long texts, even in their own instructions that come back.

use serde_json::{Map, Value};

use super::refusal::Refusal;
use super::request::Request;
use super::schema;

/// A conversation, and what the reply may be.
#[derive(Debug, Default)]
pub struct Prompt<'a> {
    turns: Vec<Turn<'a>>,
    /// The words of all texts: the mock counts a word as a token.
    pub words: usize,
    /// The offered tools.
    pub tools: Vec<Tool<'a>>,
    /// Whether one of them has to be called.
    pub choice: Choice<'a>,
    /// The schema of the answer, if it has to be a JSON document.
    pub schema: Option<&'a Value>,
}

#[derive(Debug)]
enum Turn<'a> {
    /// The texts of the user.
    User(Vec<&'a str>),
    /// The reply called this tool.
    Call(&'a str),
    /// The result of a call.
    Result(String),
}

/// An offered tool.
#[derive(Debug, Clone, Copy)]
pub struct Tool<'a> {
    /// Its name.
    pub name: &'a str,
    /// The schema of its arguments; `None`: they are a text.
    pub schema: Option<&'a Value>,
}

/// Whether a tool has to be called.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Choice<'a> {
    /// As the prompt says.
    #[default]
    Auto,
    /// None of them.
    None,
    /// One of them.
    Any,
    /// This one.
    Named(&'a str),
}

/// A reply.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply<'a> {
    /// A text.
    Text(String),
    /// A call of the tool with this name.
    Call(&'a str, Arguments),
}

/// The arguments of a call.
#[derive(Debug, Clone, PartialEq)]
pub enum Arguments {
    /// An object.
    Object(Value),
    /// A text.
    Text(String),
}

impl<'a> Prompt<'a> {
    /// Adds a message of this role.
    pub fn push_message(&mut self, role: &str, content: &'a Value) {
        let texts = self.texts(content);
        if role == "user" {
            self.turns.push(Turn::User(texts));
        }
    }

    /// Adds a call of a tool.
    pub fn push_call(&mut self, name: &'a Value) {
        self.turns.extend(name.as_str().map(Turn::Call));
    }

    /// Adds the result of a call.
    pub fn push_result(&mut self, content: &'a Value) {
        let text = match self.texts(content).join("\n") {
            text if text.is_empty() && !content.is_null() => content.to_string(),
            text => text,
        };
        self.turns.push(Turn::Result(text));
    }

    /// Counts the words of instructions.
    pub fn push_instructions(&mut self, content: &'a Value) {
        self.texts(content);
    }

    fn texts(&mut self, content: &'a Value) -> Vec<&'a str> {
        let texts = texts(content);
        self.words += texts.iter().map(|text| words(text)).sum::<usize>();
        texts
    }

    /// The reply.
    ///
    /// # Errors
    ///
    /// A tool is asked for that is not offered.
    pub fn reply(&self, request: &Request) -> Result<Reply<'a>, Refusal> {
        if let Choice::Named(name) = self.choice
            && self.tool(name).is_none()
        {
            return Err(self.not_offered("tool_choice", name));
        }
        let own;
        let (said, line) = match self.last_turn() {
            // The end of an output tells more than its beginning.
            Some(Turn::Result(text)) => ("The tool returned", lines(text).next_back()),
            Some(Turn::User(texts)) => {
                own = own_text(texts);
                if let Some(wish) = Wish::in_text(&own)
                    && !self.tools.is_empty()
                    && self.choice != Choice::None
                {
                    let tool = self.tool(wish.name);
                    let tool = tool.ok_or_else(|| self.not_offered("tools", wish.name))?;
                    return Ok(wish.call(tool));
                }
                ("You said", lines(&own).next())
            }
            _ => ("You said", None),
        };
        if let Some(tool) = self.tool_to_call() {
            return Ok(Wish::default().call(tool));
        }
        Ok(Reply::Text(match self.schema {
            Some(Value::Null) => "{}".to_owned(),
            Some(schema) => schema::fitting(schema).to_string(),
            None => format!(
                "{said}: {}\nIdentified by: {}",
                shortened(line.unwrap_or_default()),
                request.identified_by()
            ),
        }))
    }

    fn tool(&self, name: &str) -> Option<Tool<'a>> {
        self.tools.iter().find(|tool| tool.name == name).copied()
    }

    fn not_offered(&self, param: &'static str, name: &str) -> Refusal {
        let offered: Vec<&str> = self.tools.iter().map(|tool| tool.name).collect();
        let offered = offered.join(", ");
        let message = format!("the tool `{name}` is not offered; the request offers: {offered}");
        Refusal::invalid(param, message)
    }

    /// The last turn that is no call. Texts that agents add by themselves, after a result too, are not the user's.
    fn last_turn(&self) -> Option<&Turn<'a>> {
        let is_meant = |turn: &&Turn<'_>| match turn {
            Turn::User(texts) => !texts.iter().all(|text| is_markup(text)),
            Turn::Result(_) => true,
            Turn::Call(_) => false,
        };
        let mut turns = self.turns.iter().rev();
        let any = |turn: &&Turn<'_>| !matches!(turn, Turn::Call(_));
        turns.clone().find(is_meant).or_else(|| turns.find(any))
    }

    /// The tool that the request demands. Each is called once for a prompt, so that a client that always demands one ends.
    fn tool_to_call(&self) -> Option<Tool<'a>> {
        let since_prompt = self.turns.iter().rev();
        let called: Vec<&str> = since_prompt
            .take_while(|turn| !matches!(turn, Turn::User(_)))
            .filter_map(|turn| match turn {
                Turn::Call(name) => Some(*name),
                _ => None,
            })
            .collect();
        let mut open = self
            .tools
            .iter()
            .filter(|tool| !called.contains(&tool.name));
        match self.choice {
            Choice::Any => open.next(),
            Choice::Named(name) => open.find(|tool| tool.name == name),
            Choice::Auto | Choice::None => None,
        }
        .copied()
    }
}

/// A tool that the user asks for.
#[derive(Default)]
struct Wish<'a> {
    name: &'a str,
    arguments: Map<String, Value>,
}

impl<'a> Wish<'a> {
    /// The last one in this text.
    fn in_text(text: &'a str) -> Option<Self> {
        // ASCII only, so the places stay.
        let at = text.to_ascii_lowercase().rfind(USE_THE_TOOL)?;
        let rest = text[at + USE_THE_TOOL.len()..].trim_start_matches([' ', '`', '"', '\'']);
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && !"_-./:".contains(c));
        let (name, rest) = rest.split_at(end.unwrap_or(rest.len()));
        let name = name.trim_end_matches(['.', ':', '/']);
        if name.is_empty() {
            return None;
        }
        let line_len = rest.find('\n').unwrap_or(rest.len());
        let object = rest[..line_len].find('{').map(|at| &rest[at..]);
        // opencode quotes its prompt.
        let arguments = object.and_then(|text| {
            first_object(text).or_else(|| first_object(&text.replace("\\\"", "\"")))
        });
        Some(Wish {
            name,
            arguments: arguments.unwrap_or_default(),
        })
    }

    fn call<'t>(self, tool: Tool<'t>) -> Reply<'t> {
        let Some(schema) = tool.schema else {
            let text = self.arguments.get("input").and_then(Value::as_str);
            return Reply::Call(
                tool.name,
                Arguments::Text(text.unwrap_or("mock").to_owned()),
            );
        };
        let mut arguments = match schema::fitting(schema) {
            Value::Object(arguments) => arguments,
            _ => Map::new(),
        };
        arguments.extend(self.arguments);
        Reply::Call(tool.name, Arguments::Object(Value::Object(arguments)))
    }
}

impl Reply<'_> {
    /// How many words it has: its tokens.
    pub fn words(&self) -> usize {
        match self {
            Reply::Text(text) => words(text),
            Reply::Call(_, arguments) => words(&arguments.text()),
        }
    }
}

impl Arguments {
    /// As text: that of an object is JSON.
    pub fn text(&self) -> String {
        match self {
            Arguments::Object(object) => object.to_string(),
            Arguments::Text(text) => text.clone(),
        }
    }
}

/// The pieces of a text, each the content of one event of a stream.
pub fn pieces(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive([' ', '\n'])
}

/// The two pieces in which arguments are streamed.
pub fn halves(text: &str) -> [&str; 2] {
    let mut at = text.len() / 2;
    while !text.is_char_boundary(at) {
        at += 1;
    }
    let (first, second) = text.split_at(at);
    [first, second]
}

/// The number of words.
pub fn words(text: &str) -> usize {
    text.split_whitespace().count()
}

/// The texts of a content: a string, an object with a text, or a list of these.
fn texts(content: &Value) -> Vec<&str> {
    match content {
        Value::Array(parts) => parts.iter().flat_map(texts).collect(),
        Value::String(text) => vec![text],
        part => ["text", "output", "result", "error", "content"]
            .iter()
            .find_map(|name| part.get(name))
            .map_or_else(Vec::new, texts),
    }
}

/// What the user wrote: without the texts that an agent adds by itself, unless there are no others.
fn own_text(texts: &[&str]) -> String {
    let own: Vec<&str> = texts
        .iter()
        .filter(|text| !is_markup(text))
        .copied()
        .collect();
    if own.is_empty() { texts } else { &own }.join("\n")
}

/// The object that a text begins with.
fn first_object(text: &str) -> Option<Map<String, Value>> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter();
    values.next()?.ok()
}

/// The lines that are sentences rather than markup.
fn lines(text: &str) -> impl DoubleEndedIterator<Item = &str> {
    let lines = text.lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !is_markup(line) && !line.starts_with("```"))
}

/// A line, not too long, and without what a client may take for an edit.
fn shortened(line: &str) -> String {
    match line.char_indices().nth(LINE_CHARS_MAX) {
        Some((end, _)) => line[..end].to_owned() + "…",
        None => line.to_owned(),
    }
    .replace("```", "")
}

/// `<system-reminder>…`, `<environment_context>…`: how agents mark what the user did not write.
fn is_markup(text: &str) -> bool {
    text.trim_start().starts_with('<')
}

const USE_THE_TOOL: &str = "use the tool ";

/// Of the line that is repeated.
const LINE_CHARS_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn prompt<'a>(text: &'a Value, schema: &'a Value) -> Prompt<'a> {
        let mut prompt = Prompt::default();
        prompt.push_message("user", text);
        prompt.tools = ["look", "mcp__a-b.c"]
            .map(|name| Tool {
                name,
                schema: Some(schema),
            })
            .into();
        prompt
    }

    fn text(reply: Result<Reply<'_>, Refusal>) -> String {
        match reply {
            Ok(Reply::Text(text)) => text,
            other => panic!("not a text: {other:?}"),
        }
    }

    #[test]
    fn a_prompt_that_names_an_offered_tool_is_answered_with_a_call_of_it() {
        #[track_caller]
        fn check(said: Value, tool: &str, arguments: Value) {
            let schema = json!({
                "properties": {"path": {"type": "string"}}, "required": ["path"],
            });
            let prompt = prompt(&said, &schema);
            let reply = prompt.reply(&Request::default());
            let expected = Reply::Call(tool, Arguments::Object(arguments));
            assert_eq!(reply, Ok(expected), "{said}");
        }
        let made_up = json!({"path": "mock"});
        check(json!("use the tool look"), "look", made_up.clone());
        check(
            json!("Please Use the Tool `look`."),
            "look",
            made_up.clone(),
        );
        check(json!("use the tool \"look\", now"), "look", made_up.clone());
        check(
            json!("use the tool mcp__a-b.c: go"),
            "mcp__a-b.c",
            made_up.clone(),
        );
        check(
            json!("use the tool none; no, use the tool look"),
            "look",
            made_up.clone(),
        );
        check(
            json!("use the tool look {\"path\":"),
            "look",
            made_up.clone(),
        );
        check(
            json!("use the tool look\n{\"path\": 1}"),
            "look",
            made_up.clone(),
        );
        let given = json!({"path": "a", "b": 1});
        check(
            json!("use the tool look {\"path\": \"a\", \"b\": 1} {}"),
            "look",
            given.clone(),
        );
        check(
            json!("use the tool look with {\"path\": \"a\",\n \"b\": 1}."),
            "look",
            given.clone(),
        );
        check(
            json!(r#""use the tool look {\"path\": \"a\", \"b\": 1}""#),
            "look",
            given,
        );
        let parts = json!([{"text": "use the tool look"}, {"text": "<hint>use the tool x</hint>"}]);
        check(parts, "look", made_up);
    }

    #[test]
    fn a_tool_that_is_not_offered_is_refused_and_without_tools_the_reply_is_a_text() {
        let (said, schema) = (json!("use the tool loko"), Value::Null);
        let mut prompt = prompt(&said, &schema);
        let refused = "the tool `loko` is not offered; the request offers: look, mcp__a-b.c";
        let expected = Err(Refusal::invalid("tools", refused));
        assert_eq!(prompt.reply(&Request::default()), expected);
        prompt.choice = Choice::Named("loko");
        let expected = Err(Refusal::invalid("tool_choice", refused));
        assert_eq!(prompt.reply(&Request::default()), expected);
        prompt.choice = Choice::None;
        assert!(
            text(prompt.reply(&Request::default())).starts_with("You said: use the tool loko\n")
        );
        prompt.choice = Choice::Auto;
        prompt.tools.clear();
        assert!(
            text(prompt.reply(&Request::default())).starts_with("You said: use the tool loko\n")
        );
    }

    #[test]
    fn a_demanded_tool_is_called_once() {
        let (said, schema, result) = (json!("hello"), Value::Null, json!("done"));
        let names = [json!("look"), json!("mcp__a-b.c")];
        let called = |prompt: &Prompt<'_>| match prompt.reply(&Request::default()) {
            Ok(Reply::Call(name, _)) => Some(name.to_owned()),
            _ => None,
        };
        let mut prompt = prompt(&said, &schema);
        assert_eq!(called(&prompt), None);
        for name in &names {
            prompt.choice = Choice::Named("mcp__a-b.c");
            assert_eq!(called(&prompt).as_deref(), Some("mcp__a-b.c"));
            prompt.choice = Choice::Any;
            assert_eq!(called(&prompt).as_deref(), name.as_str());
            prompt.push_call(name);
            prompt.push_result(&result);
        }
        assert_eq!(called(&prompt), None);
    }

    #[test]
    fn the_reply_repeats_one_line_of_what_the_user_wrote() {
        #[track_caller]
        fn check(content: Value, line: &str) {
            let schema = Value::Null;
            let reply = text(prompt(&content, &schema).reply(&Request::default()));
            let expected = format!(
                "You said: {line}\nIdentified by: x-memory-user-id=(none), x-pycharm-instance=(none), x-source=(none)"
            );
            assert_eq!(reply, expected);
        }
        check(json!("hello"), "hello");
        check(json!("\n  first \nsecond"), "first");
        check(json!("```\nshop.py\n```"), "shop.py");
        check(json!("a ```b``` c"), "a b c");
        check(json!("<task>\nhello\n</task>"), "hello");
        let parts = json!([{"text": "<system-reminder>x</system-reminder>"}, {"type": "image"}, {"text": "hello"}]);
        check(parts, "hello");
        check(json!("é".repeat(300)), &("é".repeat(200) + "…"));
        check(json!([]), "");
        check(json!(7), "");
    }

    #[test]
    fn the_last_turn_decides_and_what_agents_add_behind_it_does_not() {
        let contents = [
            json!("use the tool look"),
            json!("look"),
            json!("Output:\nit is sunny\n</output>"),
            json!("<environment_context>x</environment_context>"),
            json!({"temperature": 3}),
            json!("thanks"),
        ];
        let schema = Value::Null;
        let mut prompt = prompt(&contents[0], &schema);
        prompt.push_call(&contents[1]);
        prompt.push_result(&contents[2]);
        let says = |prompt: &Prompt<'_>, expected: &str| {
            let said = text(prompt.reply(&Request::default()));
            assert_eq!(said.lines().next(), Some(expected));
        };
        says(&prompt, "The tool returned: it is sunny");
        prompt.push_message("user", &contents[3]);
        says(&prompt, "The tool returned: it is sunny");
        prompt.push_result(&contents[4]);
        says(&prompt, "The tool returned: {\"temperature\":3}");
        prompt.push_message("user", &contents[5]);
        says(&prompt, "You said: thanks");
        assert_eq!(prompt.words, 4 + 5 + 1 + 1);
    }

    #[test]
    fn a_format_is_answered_with_a_document_that_fits() {
        let (said, schema) = (json!("hello"), json!({"type": "integer", "minimum": 4}));
        let mut prompt = prompt(&said, &schema);
        prompt.schema = Some(&schema);
        assert_eq!(text(prompt.reply(&Request::default())), "4");
        prompt.schema = Some(&Value::Null);
        assert_eq!(text(prompt.reply(&Request::default())), "{}");
    }
}
