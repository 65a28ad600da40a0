//! The placeholders `{port}`, `{url}` and `{v1}` in the arguments of the program of `ic run`, for programs that get their base URL
//! on the command line.
//!
//! Arguments contain braces of their own (JSON, awk, `${port}` of a shell), so one without a placeholder is left as it is, and of
//! the others only what is described here is changed.

use crate::cli::address::BaseUrls;

/// `argument` with the placeholders replaced for the interceptor at these URLs. Where one stands, `{{` is a brace, so that
/// `{{port}}` is the text `{port}`.
pub fn filled(argument: &str, urls: &BaseUrls) -> String {
    let values = [
        ("port}", urls.port().to_owned()),
        ("url}", urls.bare()),
        ("v1}", urls.openai()),
    ];
    let mut filled = String::with_capacity(argument.len());
    let mut has_placeholder = false;
    let mut rest = argument;
    while let Some((before, after)) = rest.split_once('{') {
        filled.push_str(before);
        let inner = after.strip_prefix('{').unwrap_or(after);
        let is_doubled = inner.len() < after.len();
        let mut known = values.iter();
        let found = known.find_map(|(name, value)| Some((name, value, inner.strip_prefix(name)?)));
        rest = inner;
        match found {
            Some((name, _, after)) if is_doubled => {
                has_placeholder = true;
                filled.push('{');
                filled.push_str(name);
                rest = after.strip_prefix('}').unwrap_or(after);
            }
            // A variable of a shell.
            Some((_, value, after)) if !filled.ends_with('$') => {
                has_placeholder = true;
                filled.push_str(value);
                rest = after;
            }
            _ => filled.push('{'),
        }
    }
    filled.push_str(rest);
    match has_placeholder {
        true => filled,
        false => argument.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip] // A table.
    fn only_placeholders_change_an_argument() {
        #[track_caller]
        fn check(argument: &str, expected: &str) {
            let urls = BaseUrls::new("localhost:8888".to_owned(), None);
            assert_eq!(filled(argument, &urls), expected);
        }
        check("{port}", "8888");
        check("--base-url={v1}", "--base-url=http://localhost:8888/v1");
        check("{url} {url}/v1beta", "http://localhost:8888 http://localhost:8888/v1beta");
        check(r#"p={a={url="{v1}"}}"#, r#"p={a={url="http://localhost:8888/v1"}}"#);
        check("{{port}}", "{port}");
        check("{{port} {{x {port}", "{port} {x 8888");
        check("{{v1}}={v1}", "{v1}=http://localhost:8888/v1");
        check("${port} {port}", "${port} 8888");
        // Nothing stands there.
        for word in ["", "{", "}", "{}", "{{", "{{x}}", "${port}", "{ports}", "{ port }", "{print $1}", "{\"a\":{\"b\":{}}}", "{port", "日本{"] {
            check(word, word);
        }
    }
}
