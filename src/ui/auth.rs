//! The secrets that admit a page: the token in the printed address, and a code that is valid once, for the browser that
//! `ic ui` starts.
//!
//! The address of the page ends in `#token=…`. The part behind `#` is sent to no server and appears in no log and no
//! `Referer`; the page removes it from the address bar, keeps it for its tab, and sends it in a field of its own with each
//! request. A cookie would not do: cookies ignore ports, so every other server on this machine would receive it, and a
//! browser adds them to requests that other pages make. Only the page adds a field of its own.
//!
//! Every user of the machine can read command lines, and a browser is started with one. So it gets a code instead, which is
//! exchanged for the token once and within a minute: read later, it is worthless.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, Read};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A random text of 128 bits, in hexadecimal.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// Makes a token.
    ///
    /// # Errors
    ///
    /// `/dev/urandom` cannot be read.
    pub fn new() -> io::Result<Token> {
        let mut bytes = [0; BYTES];
        File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        let mut text = String::with_capacity(2 * BYTES);
        for byte in bytes {
            // Writing into a String cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        Ok(Token(text))
    }

    /// Whether `given` is this token. The time that this takes does not depend on how much of it is right.
    pub fn is(&self, given: &[u8]) -> bool {
        let differing = |(a, b): (&u8, &u8)| a ^ b;
        let difference = self
            .0
            .as_bytes()
            .iter()
            .zip(given)
            .map(differing)
            .fold(0, |all, one| std::hint::black_box(all | one));
        given.len() == self.0.len() && difference == 0
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The secrets of one run of `ic ui`.
pub struct Auth {
    token: Token,
    /// Valid once, until the given time.
    code: Mutex<Option<(Token, Instant)>>,
}

impl Auth {
    /// Makes new secrets.
    ///
    /// # Errors
    ///
    /// `/dev/urandom` cannot be read.
    pub fn new() -> io::Result<Auth> {
        Ok(Auth {
            token: Token::new()?,
            code: Mutex::new(None),
        })
    }

    /// The token that every request of the page carries.
    pub fn token(&self) -> &Token {
        &self.token
    }

    /// Makes the code that can be exchanged for the token once, within a minute from now; an earlier one expires.
    ///
    /// # Errors
    ///
    /// `/dev/urandom` cannot be read.
    pub fn issue_code(&self) -> io::Result<Token> {
        let code = Token::new()?;
        let mut current = self.code.lock().unwrap_or_else(PoisonError::into_inner);
        *current = Some((code.clone(), Instant::now() + CODE_LIFE));
        Ok(code)
    }

    /// Exchanges a valid code for the token.
    pub fn redeem(&self, code: &[u8], now: Instant) -> Option<&Token> {
        let mut current = self.code.lock().unwrap_or_else(PoisonError::into_inner);
        let is_valid = |(valid, until): &mut (Token, Instant)| now <= *until && valid.is(code);
        current.take_if(is_valid).map(|_| &self.token)
    }
}

/// 128 bits.
const BYTES: usize = 16;

/// A browser that has to be started first may take a while.
const CODE_LIFE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_is_the_token() {
        let token = Token::new().expect("random bytes");
        let text = token.to_string();
        assert_eq!(text.len(), 32);
        assert!(token.is(text.as_bytes()));
        let mut wrong = text.clone().into_bytes();
        wrong[31] ^= 1;
        for given in [
            &b""[..],
            &text.as_bytes()[..31],
            (text.clone() + "0").as_bytes(),
            &wrong,
        ] {
            assert!(!token.is(given), "{given:?}");
        }
        let other = Token::new().expect("random bytes");
        assert!(!token.is(other.to_string().as_bytes()));
    }

    #[test]
    fn a_code_is_valid_once_and_for_a_minute() {
        let auth = Auth::new().expect("random bytes");
        let now = Instant::now();
        assert!(auth.redeem(b"", now).is_none(), "there is none yet");
        let code = auth.issue_code().expect("random bytes").to_string();
        assert!(auth.redeem(b"guessed", now).is_none());
        assert!(auth.redeem(code.as_bytes(), now).is_some());
        assert!(auth.redeem(code.as_bytes(), now).is_none(), "once");
        let code = auth.issue_code().expect("random bytes").to_string();
        let late = now + CODE_LIFE + Duration::from_secs(5);
        assert!(auth.redeem(code.as_bytes(), late).is_none());
    }
}
