//! Which names and prefixes are those of secrets.

/// Whether a member of JSON or of a form, a setting or a variable with this name holds a secret.
pub fn is_secret(name: &[u8]) -> bool {
    let name = Name::new(name);
    let name = name.as_str();
    // `PWD` is the current folder of a shell.
    let is_password = name.ends_with("pwd") && !["pwd", "oldpwd"].contains(&name);
    EXACT.contains(&name) || is_password || (0..name.len()).any(|at| is_secret_part(name, at))
}

/// Whether the part of a name that starts at `at` is that of a secret.
fn is_secret_part(name: &str, at: usize) -> bool {
    let (before, rest) = name.split_at(at);
    let starts_with = |starts: &[&str]| starts.iter().any(|start| rest.starts_with(start));
    let follows = |ends: &[&str]| ends.iter().any(|end| before.ends_with(end));
    match rest.as_bytes().first() {
        Some(b'k') => rest.starts_with("key") && follows(KEYS),
        Some(b't') => {
            let behind = rest.strip_prefix("token");
            let is_other = |other: &&str| behind.is_some_and(|behind| behind.starts_with(*other));
            behind.is_some() && (follows(TOKENS) || !TOKEN_NUMBERS.iter().any(is_other))
        }
        Some(b'a' | b'c' | b'j' | b'p' | b's') => {
            starts_with(PARTS) && !rest.starts_with("secretar")
        }
        _ => false,
    }
}

/// Whether a header field with this name holds a secret.
pub fn is_secret_field(name: &str) -> bool {
    let is_key = ["-key", "_key"].iter().any(|end| ends_with(name, end));
    if is_key || is_secret(name.as_bytes()) {
        return true;
    }
    let name = Name::new(name.as_bytes());
    let name = name.as_str();
    // `X-Auth`, `Authentication`, but not `Author`.
    let mut after_auth = name.match_indices("auth").map(|(at, _)| &name[at..]);
    after_auth.any(|rest| !rest.starts_with("author"))
        || name == "key"
        || name.ends_with("signature")
        || name.ends_with("session")
}

/// Whether `name=` before a value in a query or a form names a key that has no better name, as in Gemini's `?key=`.
pub fn is_plain_key(name: &[u8]) -> bool {
    let name = Name::new(name);
    let name = name.as_str();
    matches!(name, "key" | "sig" | "code") || name.ends_with("signature")
}

/// Whether a name of a secret is that of a header field or an option, whose value follows it in a list.
pub fn is_http_name(name: &[u8]) -> bool {
    name.contains(&b'-') || is_whole_line(name)
}

/// Whether the value of a field with this name goes on after a space.
pub fn is_whole_line(name: &[u8]) -> bool {
    let name = Name::new(name);
    ["authorization", "cookie"]
        .iter()
        .any(|end| name.as_str().ends_with(end))
}

/// Whether a field with this name holds a URL, also a relative one.
pub fn is_url_field(name: &str) -> bool {
    ["location", "referer", "url", "uri"]
        .iter()
        .any(|end| ends_with(name, end))
}

/// Whether a word is an authentication scheme whose credentials are one word, or ends with one after a character that is not
/// alphanumeric.
pub fn ends_with_scheme(word: &[u8], schemes: &[&str]) -> bool {
    let last = word.rsplit(|byte| !byte.is_ascii_alphanumeric()).next();
    let last = last.unwrap_or_default();
    schemes
        .iter()
        .any(|scheme| last.eq_ignore_ascii_case(scheme.as_bytes()))
}

/// Whether a key starts here, as far as its prefix says. `is_cut`: the rest of it is missing.
pub fn starts_key(word: &[u8], is_cut: bool) -> bool {
    let Some(&first) = word.first() else {
        return false;
    };
    if !FIRST_BYTES[usize::from(first)] {
        return false;
    }
    let has_prefix = |prefixes: &[&str]| {
        let mut prefixes = prefixes.iter();
        prefixes.any(|prefix| prefix.as_bytes()[0] == first && word.starts_with(prefix.as_bytes()))
    };
    // A key may start at every hyphen of a long word.
    let start = &word[..word.len().min(KEY_START_BYTES)];
    let has_digit = || is_cut || start.iter().any(u8::is_ascii_digit);
    has_prefix(KEY_PREFIXES) || (has_prefix(WORD_PREFIXES) && has_digit())
}

/// The end of a name in lower case, without what separates its words: `x-api-key`, `api_key` and `apiKey` are one.
struct Name {
    bytes: [u8; NAME_BYTES_MAX],
    len: usize,
}

impl Name {
    fn new(name: &[u8]) -> Name {
        let end = &name[name.len().saturating_sub(NAME_BYTES_MAX)..];
        let mut bytes = [0; NAME_BYTES_MAX];
        let letters = end.iter().filter(|byte| byte.is_ascii_alphanumeric());
        let mut len = 0;
        for (to, byte) in bytes.iter_mut().zip(letters) {
            *to = byte.to_ascii_lowercase();
            len += 1;
        }
        Name { bytes, len }
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.len]).unwrap_or_default()
    }
}

fn ends_with(name: &str, end: &str) -> bool {
    let start = name.len().checked_sub(end.len());
    let tail = start.and_then(|start| name.get(start..));
    tail.is_some_and(|tail| tail.eq_ignore_ascii_case(end))
}

/// The first bytes of all prefixes: most words are no keys, and this says so at once.
static FIRST_BYTES: [bool; 256] = first_bytes();

const fn first_bytes() -> [bool; 256] {
    let mut firsts = [false; 256];
    let tables = [KEY_PREFIXES, WORD_PREFIXES];
    let mut table = 0;
    while table < tables.len() {
        let mut at = 0;
        while at < tables[table].len() {
            firsts[tables[table][at].as_bytes()[0] as usize] = true;
            at += 1;
        }
        table += 1;
    }
    firsts
}

/// As many random characters as always have a digit among them.
const KEY_START_BYTES: usize = 48;

/// Longer than the name of any member that is looked for.
pub const NAME_BYTES_MAX: usize = 64;

/// Names that hold a secret only as they are: `author` and `compass` do not.
const EXACT: &[&str] = &[
    "auth", "bearer", "dbpass", "otp", "pass", "smtppass", "xauth",
];

/// Parts of names: `Set-Cookie`, `client_secret`. Their first bytes are those that [`is_secret_part`] looks for.
const PARTS: &[&str] = &[
    "authorization",
    "cookie",
    "credential",
    "jsessionid",
    "jwt",
    "passphrase",
    "passwd",
    "password",
    "phpsessid",
    "secret",
];

/// What makes a `key` a secret one: `X-Goog-Api-Key`, but not `cache_key`.
const KEYS: &[&str] = &[
    "access",
    "account",
    "api",
    "auth",
    "encryption",
    "master",
    "private",
    "shared",
    "signing",
    "subscription",
];

/// What makes a `token` a secret one whatever follows: `access_tokens`.
const TOKENS: &[&str] = &["access", "api", "auth", "bearer", "refresh"];

/// What makes `token` the unit of a model, or a property of a token: `max_tokens`, `tokenizer`, `token_type`.
const TOKEN_NUMBERS: &[&str] = &[
    "s", "izer", "ization", "type", "count", "limit", "usage", "budget", "id", "length",
    "endpoint", "url", "uri",
];

/// Schemes whose credentials are secret whatever they look like (RFC 6750, RFC 7617).
pub const SCHEMES: &[&str] = &["bearer", "basic"];

/// Schemes that are words of other texts as well.
pub const WORD_SCHEMES: &[&str] = &["token", "negotiate", "ntlm", "apikey", "digest"];

/// How the keys of common services start.
pub const KEY_PREFIXES: &[&str] = &[
    "sk-",
    "sk_live_",
    "sk_test_",
    "rk_live_",
    "rk_test_",
    "whsec_", // OpenAI, Anthropic and many others; Stripe
    "ghp_",
    "gho_",
    "ghs_",
    "ghu_",
    "ghr_",
    "github_pat_",
    "glpat-",
    "pypi-",
    "dop_v1_",
    "hvs.", // code and its hosts
    "gsk_",
    "hf_",
    "nvapi-",
    "pplx-",
    "r8_",
    "xai-",
    "csk-",
    "tgp_",
    "lsv2_",
    "tvly-",
    "jina_",
    "ABSK", // models
    "xoxb-",
    "xoxp-",
    "xoxa-",
    "xoxr-",
    "xoxs-",
    "xapp-",
    "SG.", // messages
    "AIza",
    "ya29.",
    "AKIA",
    "ASIA", // clouds
    "eyJ",  // a JSON web token (RFC 7519)
];

/// Prefixes that words of other texts have as well; a key has a digit.
pub const WORD_PREFIXES: &[&str] = &["sess-", "ek_", "dapi", "fw_", "npm_", "pa-", "AQ."];
