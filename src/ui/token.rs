//! The secrets that let a page ask: one in the address that is printed, and one that is good once, for the browser that is
//! opened.
//!
//! The address of the page ends in `#token=…`. What stands behind `#` is sent to no server, stands in no log and in no
//! `Referer`; the page takes it out of the address bar, keeps it for its tab, and sends it in a field of its own with each
//! question. No cookie: cookies know no ports, so every other server on this machine would be sent it, and a browser
//! adds them to requests that other pages make. A field of its own is added by nobody but the page.
//!
//! A command line can be read by everybody on the machine, and a browser is started with one. So it is given a code
//! instead, which is exchanged for the token once and within a minute: whoever reads it later has nothing.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, Read};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A random text that cannot be guessed.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// A new one.
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

    /// Whether it is this one. How long the answer takes says nothing about how much of it is right.
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

/// Who may ask.
pub struct Key {
    token: Token,
    /// Good once, until then.
    code: Mutex<Option<(Token, Instant)>>,
}

impl Key {
    /// A new one.
    pub fn new() -> io::Result<Key> {
        Ok(Key {
            token: Token::new()?,
            code: Mutex::new(None),
        })
    }

    /// What every question has to carry.
    pub fn token(&self) -> &Token {
        &self.token
    }

    /// A code that is good for the token once, from now on for a minute.
    pub fn issue_code(&self) -> io::Result<Token> {
        let code = Token::new()?;
        let mut place = self.code.lock().unwrap_or_else(PoisonError::into_inner);
        *place = Some((code.clone(), Instant::now() + CODE_LIFE));
        Ok(code)
    }

    /// The token, for a code that is good.
    pub fn redeem(&self, code: &[u8], now: Instant) -> Option<&Token> {
        let mut place = self.code.lock().unwrap_or_else(PoisonError::into_inner);
        let is_good = |(good, until): &mut (Token, Instant)| now <= *until && good.is(code);
        place.take_if(is_good).map(|_| &self.token)
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
    fn a_code_is_good_once_and_for_a_minute() {
        let key = Key::new().expect("random bytes");
        let now = Instant::now();
        assert!(key.redeem(b"", now).is_none(), "there is none yet");
        let code = key.issue_code().expect("random bytes").to_string();
        assert!(key.redeem(b"guessed", now).is_none());
        assert!(key.redeem(code.as_bytes(), now).is_some());
        assert!(key.redeem(code.as_bytes(), now).is_none(), "once");
        let code = key.issue_code().expect("random bytes").to_string();
        let late = now + CODE_LIFE + Duration::from_secs(5);
        assert!(key.redeem(code.as_bytes(), late).is_none());
    }
}
