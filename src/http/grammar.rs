//! The grammar that all fields share: tokens, values, numbers, lists (RFC 9110 §5.5, §5.6).

/// The sender of a message: some deviations that are refused in a client's request are put right in a target's response.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sender {
    /// A client, of a request.
    #[default]
    Client,
    /// A target, of a response.
    Target,
}

/// The elements of a comma-separated list that may span several field lines, trimmed, the empty ones
/// left out (RFC 9110 §5.6.1).
pub fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|&byte| byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|element| !element.is_empty())
}

/// The number that `1*DIGIT` stands for, without a sign or white space; `None` if it is malformed or too large.
pub fn number(digits: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(digits).ok()?;
    // `parse` accepts a `+`.
    digits.parse().ok().filter(|_| !digits.starts_with('+'))
}

/// Whether `byte` may stand in a token (RFC 9110 §5.6.2).
pub fn is_tchar(byte: u8) -> bool {
    matches!(byte,
        b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z')
}

/// Whether `bytes` is a token (RFC 9110 §5.6.2).
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().copied().all(is_tchar)
}

/// Whether `bytes` may stand as a field value: no control characters but tabs (RFC 9110 §5.5).
pub fn is_field_value(bytes: &[u8]) -> bool {
    bytes
        .iter()
        .all(|&byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_what_rfc_9110_lists_and_nothing_else() {
        let listed =
            b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        for byte in 0..=u8::MAX {
            assert_eq!(is_token(&[byte]), listed.contains(&byte), "{byte:#04x}");
        }
        assert!(!is_token(b""), "a token has at least one character");
        assert!(!is_token(b"a b"));
    }

    #[test]
    fn a_field_value_holds_no_control_character_but_tab() {
        for byte in 0..=u8::MAX {
            let is_control = byte < 0x20 || byte == 0x7f;
            let expected = !is_control || byte == b'\t';
            assert_eq!(is_field_value(&[b'a', byte]), expected, "{byte:#04x}");
        }
        assert!(is_field_value(b""), "empty values exist");
    }

    #[test]
    fn a_list_is_split_at_commas_and_its_empty_elements_do_not_count() {
        #[track_caller]
        fn check(value: &str, expected: &[&str]) {
            let elements: Vec<_> = list(value.as_bytes()).collect();
            let expected: Vec<_> = expected.iter().map(|text| text.as_bytes()).collect();
            assert_eq!(elements, expected, "{value:?}");
        }
        check("", &[]);
        check(" ,\t, ", &[]);
        check("close", &["close"]);
        check("close,TE", &["close", "TE"]);
        check(" ,close ,\tTE,, ", &["close", "TE"]);
        check("a b", &["a b"]);
    }
}
