//! Finds the model and the token counts in one JSON document that passes in pieces, without keeping the document.
//!
//! A value counts only at one of the known paths from the outermost object: a prompt or a tool's arguments may contain anything,
//! such as the usage of another request. A malformed document yields nothing or something meaningless, which is harmless:
//! the result is only shown.

use serde_json::Value;

/// What a body says about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BodySummary {
    /// The requested model, or the one that answers.
    pub model: Option<String>,
    /// The tokens, as the response counts them.
    pub usage: Usage,
    /// Server-sent events with data.
    pub events: u64,
    /// Responses that have ended in a WebSocket; `None`: it does not speak the Responses API.
    pub turns: Option<u64>,
    /// The kind of the last message of a WebSocket, as far as it matters.
    pub kind: Kind,
}

impl BodySummary {
    /// Of a body that says nothing.
    pub const NONE: BodySummary = BodySummary {
        model: None,
        usage: Usage([None; COUNTS]),
        events: 0,
        turns: None,
        kind: Kind::Other,
    };
}

/// What the `type` of a message says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Kind {
    /// Neither of these.
    #[default]
    Other,
    /// It asks for a response.
    Create,
    /// It is the last one of a response.
    End,
}

/// The token counts of a response, by their names in the APIs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage([Option<u64>; COUNTS]);

/// A token count. OpenAI and Gemini include cached tokens in those of the prompt; Anthropic counts them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// `prompt_tokens`, `promptTokenCount`.
    Prompt,
    /// `input_tokens`: of Anthropic, unless [`Count::Cached`] is known too.
    Input,
    /// `output_tokens`, `completion_tokens`, `candidatesTokenCount`.
    Output,
    /// `cached_tokens`, `cachedContentTokenCount`.
    Cached,
    /// `cache_read_input_tokens` of Anthropic.
    CacheRead,
    /// `cache_creation_input_tokens` of Anthropic.
    CacheCreation,
    /// `thoughtsTokenCount` of Gemini, which its output does not include.
    Thoughts,
    /// `toolUsePromptTokenCount` of Gemini, which its prompt does not include.
    ToolUse,
}

const COUNTS: usize = Count::ToolUse as usize + 1;

impl Usage {
    /// Returns the tokens of everything that was sent to the model, cached or not.
    pub fn input_tokens(&self) -> Option<u64> {
        use Count::{CacheCreation, CacheRead, Cached, Input, Prompt, ToolUse};
        let counts_cached_apart = self.get(Prompt).is_none() && self.get(Cached).is_none();
        match self.get(Prompt).or(self.get(Input)) {
            Some(input) if counts_cached_apart => {
                Some(self.with(input, &[CacheRead, CacheCreation]))
            }
            Some(prompt) => Some(self.with(prompt, &[ToolUse])),
            None => None,
        }
    }

    /// Returns those of the input tokens that were read from a cache.
    pub fn cached_tokens(&self) -> Option<u64> {
        self.get(Count::Cached).or(self.get(Count::CacheRead))
    }

    /// Returns the tokens of everything that the model produced, thoughts included.
    pub fn output_tokens(&self) -> Option<u64> {
        let known = self.get(Count::Output).or(self.get(Count::Thoughts));
        known.map(|_| self.with(0, &[Count::Output, Count::Thoughts]))
    }

    /// Sets a count.
    pub fn set(&mut self, count: Count, tokens: u64) {
        self.0[count as usize] = Some(tokens);
    }

    /// Adds the counts of another response.
    pub fn add(&mut self, other: &Usage) {
        for (sum, tokens) in self.0.iter_mut().zip(other.0) {
            if let Some(tokens) = tokens {
                *sum = Some(sum.unwrap_or(0).saturating_add(tokens));
            }
        }
    }

    fn get(&self, count: Count) -> Option<u64> {
        self.0[count as usize]
    }

    fn with(&self, first: u64, others: &[Count]) -> u64 {
        let others = others.iter().filter_map(|count| self.get(*count));
        others.fold(first, u64::saturating_add)
    }
}

/// Reads one document. It keeps the position and the current scalar, less than a kilobyte.
#[derive(Debug, Clone, Default)]
pub struct JsonScanner {
    /// How many objects and arrays enclose the position.
    depth: usize,
    /// The outermost of them, from the outside in: what the value at the position is to each.
    path: [Step; PATH_LEN_MAX],
    /// Whether the next string is a key.
    expects_key: bool,
    state: State,
    /// The current scalar as written: a string with its quotes, a number or a literal; cut after [`SCALAR_BYTES_MAX`].
    scalar: Vec<u8>,
}

/// One step on the way to a value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Step {
    /// An element of an array.
    #[default]
    Element,
    /// A member with a key that is not looked for.
    Other,
    Model,
    /// `modelVersion` of Gemini.
    ModelVersion,
    Usage,
    /// `usageMetadata` of Gemini.
    UsageMetadata,
    /// `response` or `message`: holds in an event what a response without a stream holds at the top.
    Response,
    /// What a count consists of.
    Details,
    Count(Count),
    Type,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Between,
    String,
    /// After a backslash in a string.
    Escape,
    /// In a number, `true`, `false` or `null`.
    Literal,
}

impl JsonScanner {
    /// Reads the next bytes of the document and adds what they say to `summary`.
    pub fn scan(&mut self, bytes: &[u8], summary: &mut BodySummary) {
        for &byte in bytes {
            match self.state {
                State::String => {
                    self.keep(byte);
                    match byte {
                        b'"' => self.end_scalar(summary),
                        b'\\' => self.state = State::Escape,
                        _ => {}
                    }
                }
                State::Escape => {
                    // The digits of `\u` need no state: they cannot end a string.
                    self.keep(byte);
                    self.state = State::String;
                }
                State::Literal if is_of_literal(byte) => self.keep(byte),
                State::Literal => {
                    self.end_scalar(summary);
                    self.start(byte);
                }
                State::Between => self.start(byte),
            }
        }
    }

    /// Reads a byte that does not belong to a scalar before it.
    fn start(&mut self, byte: u8) {
        match byte {
            b'{' | b'[' => {
                self.expects_key = byte == b'{';
                if let Some(step) = self.path.get_mut(self.depth) {
                    *step = if self.expects_key {
                        Step::Other
                    } else {
                        Step::Element
                    };
                }
                self.depth = self.depth.saturating_add(1);
            }
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                self.expects_key = false;
            }
            b',' => {
                self.expects_key = self.last_step().is_some_and(|step| *step != Step::Element);
            }
            b'"' => self.start_scalar(byte, State::String),
            _ if is_of_literal(byte) => self.start_scalar(byte, State::Literal),
            _ => {}
        }
    }

    fn start_scalar(&mut self, byte: u8, state: State) {
        self.scalar.clear();
        self.scalar.push(byte);
        self.state = state;
    }

    fn keep(&mut self, byte: u8) {
        // One byte above the limit marks a scalar that is too long.
        if self.scalar.len() <= SCALAR_BYTES_MAX {
            self.scalar.push(byte);
        }
    }

    fn end_scalar(&mut self, summary: &mut BodySummary) {
        self.state = State::Between;
        let is_key = std::mem::take(&mut self.expects_key);
        if self.depth > PATH_LEN_MAX {
            return;
        }
        let value = match self.scalar.len() {
            ..=SCALAR_BYTES_MAX => serde_json::from_slice(&self.scalar).unwrap_or_default(),
            _ => Value::Null,
        };
        if is_key {
            if let Some(step) = self.last_step() {
                *step = Step::of(value.as_str().unwrap_or_default());
            }
            return;
        }
        let path = match self.path.get(..self.depth).unwrap_or_default() {
            [Step::Type] => {
                summary.kind = value.as_str().map_or(Kind::Other, Kind::of);
                return;
            }
            [Step::Response, path @ ..] => path,
            // A stream of Gemini without events is an array.
            [Step::Element, path @ ..]
                if matches!(path, [Step::ModelVersion | Step::UsageMetadata, ..]) =>
            {
                path
            }
            path => path,
        };
        match (path, value) {
            ([Step::Model | Step::ModelVersion], Value::String(model)) if !model.is_empty() => {
                summary.model = Some(model);
            }
            (
                [Step::Usage | Step::UsageMetadata, Step::Count(count)]
                | [
                    Step::Usage,
                    Step::Details,
                    Step::Count(count @ Count::Cached),
                ],
                Value::Number(number),
            ) => {
                if let Some(tokens) = number.as_u64() {
                    summary.usage.set(*count, tokens);
                }
            }
            _ => {}
        }
    }

    /// Returns the step into the innermost object or array, where the path is long enough for it.
    fn last_step(&mut self) -> Option<&mut Step> {
        self.path.get_mut(self.depth.checked_sub(1)?)
    }
}

impl Step {
    fn of(key: &str) -> Step {
        Step::Count(match key {
            "model" => return Step::Model,
            "modelVersion" => return Step::ModelVersion,
            "usage" => return Step::Usage,
            "usageMetadata" => return Step::UsageMetadata,
            "response" | "message" => return Step::Response,
            "prompt_tokens_details" | "input_tokens_details" => return Step::Details,
            "type" => return Step::Type,
            "prompt_tokens" | "promptTokenCount" => Count::Prompt,
            "input_tokens" => Count::Input,
            "completion_tokens" | "output_tokens" | "candidatesTokenCount" => Count::Output,
            "cached_tokens" | "cachedContentTokenCount" => Count::Cached,
            "cache_read_input_tokens" => Count::CacheRead,
            "cache_creation_input_tokens" => Count::CacheCreation,
            "thoughtsTokenCount" => Count::Thoughts,
            "toolUsePromptTokenCount" => Count::ToolUse,
            _ => return Step::Other,
        })
    }
}

impl Kind {
    fn of(name: &str) -> Kind {
        match name {
            "response.create" => Kind::Create,
            "response.completed" | "response.incomplete" | "response.failed" => Kind::End,
            _ => Kind::Other,
        }
    }
}

fn is_of_literal(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)
}

/// The longest known path: `response.usage.input_tokens_details.cached_tokens`.
const PATH_LEN_MAX: usize = 4;

/// The longest key or model that is read, with its quotes. The names of models have about 40 bytes.
const SCALAR_BYTES_MAX: usize = 258;
