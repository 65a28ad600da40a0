//! The secrets that admit a page: the token in the printed address, and a code that is valid once, for the browser that
//! `ic ui` starts.
//!
//! The address of the page ends in `#token=…`. The part behind `#` is sent to no server and appears in no log and no
//! `Referer`; the page removes it from the address bar, keeps it for its tab, and sends it in a field of its own with each
//! request. A cookie would not do: cookies ignore ports, so every other server on this machine would receive it, and a
//! browser adds them to requests that other pages make. Only the page adds a field of its own.
//!
//! Every user of the machine can read command lines, and a browser is started with one. It therefore contains only the path of
//! a file that no other user can read, and that sends the browser to the page with a code. The code is exchanged for the token
//! once and within a minute, and the file is removed with it.

use std::fmt::{self, Write as _};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::machine::feeds::create_private;

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
    code: Mutex<Option<Code>>,
}

/// A code that is valid once.
struct Code {
    code: Token,
    until: Instant,
    /// Removed when it is dropped.
    _file: Redirect,
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

    /// Makes the code that can be exchanged for the token once, within a minute from now; an earlier one expires. Returns a
    /// file in `folder`, which sends a browser to the page at `address` with the code.
    ///
    /// # Errors
    ///
    /// `/dev/urandom` cannot be read, or there can be no such file that only this user can read.
    pub fn issue_code(&self, address: SocketAddr, folder: &Path) -> io::Result<PathBuf> {
        let code = Token::new()?;
        let file = Redirect::create(address, &code, folder)?;
        let path = file.0.clone();
        *self.code() = Some(Code {
            code,
            until: Instant::now() + CODE_LIFE,
            _file: file,
        });
        Ok(path)
    }

    /// Exchanges a valid code for the token.
    pub fn redeem(&self, code: &[u8], now: Instant) -> Option<&Token> {
        let is_valid = |issued: &mut Code| now <= issued.until && issued.code.is(code);
        self.code().take_if(is_valid).map(|_| &self.token)
    }

    /// Makes the code invalid, and removes its file.
    pub fn revoke_code(&self) {
        *self.code() = None;
    }

    fn code(&self) -> MutexGuard<'_, Option<Code>> {
        self.code.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A page that sends a browser to another one, in a file that only this user can read; removed when it is dropped.
struct Redirect(PathBuf);

impl Redirect {
    fn create(address: SocketAddr, code: &Token, folder: &Path) -> io::Result<Redirect> {
        create_private(folder)?;
        // No other process has this port: a file of that name is of one that was killed.
        let file = Redirect(folder.join(format!("ui-{}.html", address.port())));
        if let Err(error) = fs::remove_file(&file.0)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        let mut options = OpenOptions::new();
        let mut open = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&file.0)?;
        write!(
            open,
            "<!doctype html>\n<meta charset=\"utf-8\">\n<title>ic</title>\n\
             <meta http-equiv=\"refresh\" content=\"0; url=http://{address}/#code={code}\">\n"
        )?;
        Ok(file)
    }
}

impl Drop for Redirect {
    fn drop(&mut self) {
        // Its code is invalid from now on; the next process with this port removes the file if this one cannot.
        let _ = fs::remove_file(&self.0);
    }
}

/// 128 bits.
const BYTES: usize = 16;

/// A browser that has to be started first may take a while.
pub const CODE_LIFE: Duration = Duration::from_secs(60);

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
        let parent = tempfile::tempdir().expect("a folder");
        let folder = parent.path().join("run");
        let address = SocketAddr::from(([127, 0, 0, 1], 8887));
        let issue = || {
            let file = auth.issue_code(address, &folder).expect("a file");
            let text = fs::read_to_string(&file).expect("it can be read");
            let (_, code) = text
                .split_once("url=http://127.0.0.1:8887/#code=")
                .expect(&text);
            (file, code[..2 * BYTES].to_owned())
        };
        let (file, code) = issue();
        assert!(auth.redeem(b"guessed", now).is_none() && file.exists());
        assert!(auth.redeem(code.as_bytes(), now).is_some());
        assert!(auth.redeem(code.as_bytes(), now).is_none(), "once");
        assert!(!file.exists(), "it is of no more use");
        let (file, code) = issue();
        let late = now + CODE_LIFE + Duration::from_secs(5);
        assert!(auth.redeem(code.as_bytes(), late).is_none());
        auth.revoke_code();
        assert!(auth.redeem(code.as_bytes(), now).is_none() && !file.exists());
        fs::write(&file, "of a process that was killed").expect("a file");
        let (file, code) = issue();
        assert!(auth.redeem(code.as_bytes(), now).is_some() && !file.exists());
    }
}
