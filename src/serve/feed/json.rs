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
    /// Tokens of the prompt, as the response counts them.
    pub input_tokens: Option<u64>,
    /// Tokens of the response.
    pub output_tokens: Option<u64>,
    /// Server-sent events with data.
    pub events: u64,
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
    Usage,
    /// `response` or `message`: holds in an event what a response without a stream holds at the top.
    Response,
    InputTokens,
    OutputTokens,
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
        let path = self.path.get(..self.depth).unwrap_or_default();
        match (path.strip_prefix(&[Step::Response]).unwrap_or(path), value) {
            ([Step::Model], Value::String(model)) if !model.is_empty() => {
                summary.model = Some(model);
            }
            ([Step::Usage, Step::InputTokens], Value::Number(count)) => {
                summary.input_tokens = count.as_u64().or(summary.input_tokens);
            }
            ([Step::Usage, Step::OutputTokens], Value::Number(count)) => {
                summary.output_tokens = count.as_u64().or(summary.output_tokens);
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
        match key {
            "model" => Step::Model,
            "usage" => Step::Usage,
            "response" | "message" => Step::Response,
            "prompt_tokens" | "input_tokens" => Step::InputTokens,
            "completion_tokens" | "output_tokens" => Step::OutputTokens,
            _ => Step::Other,
        }
    }
}

fn is_of_literal(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)
}

/// The longest known path: `response.usage.input_tokens`.
const PATH_LEN_MAX: usize = 3;

/// The longest key or model that is read, with its quotes. The names of models have about 40 bytes.
const SCALAR_BYTES_MAX: usize = 258;
