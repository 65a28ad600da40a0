//! One JSON document as it passes: the few values that are wanted, found without keeping the rest.
//!
//! Decided here: where in a document a value counts. A prompt or a tool's arguments may hold anything, other people's
//! usage reports among it; so the keys on the way to a value count, from the outside in. What is not JSON brings nothing,
//! or something that was not meant: it is shown, and nothing depends on it.

/// What a body has said so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// The model that is asked, or that answers.
    pub model: Option<String>,
    /// Tokens of the question, as the answer counts them.
    pub input_tokens: Option<u64>,
    /// Tokens of the answer.
    pub output_tokens: Option<u64>,
    /// Events of a stream, each with data.
    pub events: u64,
}

/// A document, and where in it we are.
#[derive(Debug, Clone, Default)]
pub struct Document {
    depth: usize,
    /// What encloses us, from the outside in, as far as that matters.
    levels: [Level; LEVELS],
    /// The next text is a key.
    expects_key: bool,
    state: State,
    /// The text that is being read, as it is written.
    text: Vec<u8>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Level {
    is_object: bool,
    /// The key whose value is next.
    key: Key,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Key {
    #[default]
    Other,
    Model,
    Usage,
    /// Holds what an answer in one piece holds, inside an event.
    Answer,
    Input,
    Output,
}

#[derive(Debug, Clone, Copy, Default)]
enum State {
    #[default]
    Between,
    Text {
        use_as: Use,
        is_escaped: bool,
    },
    /// A number, as long as it is a whole one that fits.
    Number(Option<u64>),
}

/// What a text is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Key,
    Model,
    Nothing,
}

impl Document {
    /// Takes the next bytes of it.
    pub fn see(&mut self, bytes: &[u8], seen: &mut Seen) {
        let mut rest = bytes;
        while let Some((&byte, behind)) = rest.split_first() {
            if let State::Text { use_as, is_escaped } = self.state {
                rest = self.in_text(rest, use_as, is_escaped, seen);
                continue;
            }
            rest = behind;
            if let State::Number(number) = self.state {
                match byte {
                    b'0'..=b'9' => {
                        let digit = u64::from(byte - b'0');
                        let longer = number
                            .and_then(|number| number.checked_mul(10))
                            .and_then(|number| number.checked_add(digit));
                        self.state = State::Number(longer);
                        continue;
                    }
                    b'.' | b'e' | b'E' | b'+' | b'-' => {
                        self.state = State::Number(None);
                        continue;
                    }
                    _ => self.take_number(number, seen),
                }
            }
            self.between(byte);
        }
    }

    fn between(&mut self, byte: u8) {
        match byte {
            b'{' | b'[' => {
                let is_object = byte == b'{';
                if let Some(level) = self.levels.get_mut(self.depth) {
                    *level = Level {
                        is_object,
                        key: Key::Other,
                    };
                }
                self.depth = self.depth.saturating_add(1);
                self.expects_key = is_object;
            }
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                self.expects_key = false;
            }
            b',' => self.expects_key = self.level().is_some_and(|level| level.is_object),
            b'"' => {
                let use_as = if std::mem::take(&mut self.expects_key) {
                    Use::Key
                } else if self.is_at(&[Key::Model]) || self.is_at(&[Key::Answer, Key::Model]) {
                    Use::Model
                } else {
                    Use::Nothing
                };
                self.text.clear();
                self.state = State::Text {
                    use_as,
                    is_escaped: false,
                };
            }
            b'0'..=b'9' => self.state = State::Number(Some(u64::from(byte - b'0'))),
            b'-' => self.state = State::Number(None),
            _ => {}
        }
    }

    /// Takes bytes up to the end of the text, or up to an escape; returns what is behind them.
    fn in_text<'b>(
        &mut self,
        bytes: &'b [u8],
        use_as: Use,
        is_escaped: bool,
        seen: &mut Seen,
    ) -> &'b [u8] {
        let plain = if is_escaped {
            1
        } else {
            let ends = |byte: &u8| matches!(byte, b'"' | b'\\');
            bytes.iter().position(ends).unwrap_or(bytes.len())
        };
        let (plain, rest) = bytes.split_at(plain);
        self.keep(plain, use_as);
        let is_escaped = match rest.split_first() {
            // One byte behind a backslash is enough: what `\u` has behind it ends no text.
            _ if is_escaped => false,
            Some((b'"', behind)) => {
                self.state = State::Between;
                self.take_text(use_as, seen);
                return behind;
            }
            Some((escape, behind)) => {
                self.keep(&[*escape], use_as);
                self.state = State::Text {
                    use_as,
                    is_escaped: true,
                };
                return behind;
            }
            None => false,
        };
        self.state = State::Text { use_as, is_escaped };
        rest
    }

    fn keep(&mut self, bytes: &[u8], use_as: Use) {
        // One byte more than may be shows that it was too long.
        let room = (TEXT_BYTES_MAX + 1).saturating_sub(self.text.len());
        if use_as != Use::Nothing {
            self.text.extend(bytes.iter().take(room));
        }
    }

    fn take_text(&mut self, use_as: Use, seen: &mut Seen) {
        let text = match use_as {
            Use::Nothing => return,
            _ if self.text.len() > TEXT_BYTES_MAX => None,
            _ if self.text.contains(&b'\\') => {
                let quoted = [b"\"", self.text.as_slice(), b"\""].concat();
                serde_json::from_slice(&quoted).ok()
            }
            _ => String::from_utf8(self.text.clone()).ok(),
        };
        if use_as == Use::Model {
            if let Some(model) = text.filter(|model| !model.is_empty()) {
                seen.model = Some(model);
            }
            return;
        }
        let key = match text.as_deref() {
            Some("model") => Key::Model,
            Some("usage") => Key::Usage,
            Some("response" | "message") => Key::Answer,
            Some("prompt_tokens" | "input_tokens") => Key::Input,
            Some("completion_tokens" | "output_tokens") => Key::Output,
            _ => Key::Other,
        };
        if let Some(level) = self.level_mut() {
            level.key = key;
        }
    }

    fn take_number(&mut self, number: Option<u64>, seen: &mut Seen) {
        self.state = State::Between;
        let counts =
            |key| self.is_at(&[Key::Usage, key]) || self.is_at(&[Key::Answer, Key::Usage, key]);
        if number.is_some() && counts(Key::Input) {
            seen.input_tokens = number;
        } else if number.is_some() && counts(Key::Output) {
            seen.output_tokens = number;
        }
    }

    /// Whether what comes is the value at the end of `path`, from the outermost object on.
    fn is_at(&self, path: &[Key]) -> bool {
        self.depth == path.len()
            && self
                .levels
                .iter()
                .zip(path)
                .all(|(level, key)| level.is_object && level.key == *key)
    }

    fn level(&self) -> Option<Level> {
        self.levels.get(self.depth.checked_sub(1)?).copied()
    }

    fn level_mut(&mut self) -> Option<&mut Level> {
        self.levels.get_mut(self.depth.checked_sub(1)?)
    }
}

/// The longest way to a value: `response.usage.input_tokens`.
const LEVELS: usize = 3;

/// The longest key or model that is looked at, as written. Models have names of some 40 bytes, with their makers' and their
/// dates.
const TEXT_BYTES_MAX: usize = 256;
