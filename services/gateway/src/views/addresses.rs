//! Addresses with a port, kept whole where a line ends.
//!
//! A page breaks long words anywhere, because keys may have 255 bytes without a space. `127.0.0.1:50` at the end of a line
//! and `00` on the next would be read as another address.

use std::fmt::Write as _;

use minijinja::HtmlEscape;

/// The most digits of a port.
const MOST_DIGITS: usize = 5;

/// `text` as HTML, in which each `host:port`, with its scheme if there is one, is a box of its own.
pub(super) fn whole(text: &str) -> String {
    let mut html = String::with_capacity(text.len() + 64);
    let mut rest = text;
    while let Some((before, host, port, after)) = first(rest) {
        let _ = write!(
            html,
            r#"{}<span class="address">{}<span class="port">{}</span></span>"#,
            HtmlEscape(before),
            HtmlEscape(host),
            HtmlEscape(port)
        );
        rest = after;
    }
    let _ = write!(html, "{}", HtmlEscape(rest));
    html
}

/// Splits at the first address: the text before it, scheme and host, the port with its colon, the text after it.
fn first(text: &str) -> Option<(&str, &str, &str, &str)> {
    for (colon, _) in text.match_indices(':') {
        let after = text.get(colon + 1..)?;
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        let next = after.as_bytes().get(digits);
        if !(1..=MOST_DIGITS).contains(&digits) || next.is_some_and(u8::is_ascii_alphanumeric) {
            continue;
        }
        let before = text.get(..colon)?;
        let Some(mut start) = host_start(before) else { continue };
        if let Some(scheme) = before.get(..start).and_then(|text| text.strip_suffix("://")) {
            start = scheme.trim_end_matches(|c: char| c.is_ascii_alphanumeric()).len();
        }
        let (host, port) = (before.get(start..)?, text.get(colon..colon + 1 + digits)?);
        return Some((text.get(..start)?, host, port, after.get(digits..)?));
    }
    None
}

/// The start of the host that `text` ends with: a name, an IPv4 address, or an IPv6 address in brackets. The hours of a
/// time are none.
fn host_start(text: &str) -> Option<usize> {
    if text.ends_with(']') {
        return text.rfind('[');
    }
    let start = text.trim_end_matches(|c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-').len();
    let host = text.get(start..)?;
    host.contains(|c: char| c.is_ascii_alphabetic() || c == '.').then_some(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        whole(text)
            .replace(r#"<span class="address">"#, "(")
            .replace(r#"<span class="port">"#, "|")
            .replace("</span></span>", ")")
    }

    #[test]
    fn an_address_with_its_port_is_one_box() {
        for (text, html) in [
            (
                "curl http://127.0.0.1:5000/images/a",
                "curl (http:&#x2f;&#x2f;127.0.0.1|:5000)&#x2f;images&#x2f;a",
            ),
            ("MySQL at [::1]:3306: refused", "MySQL at ([::1]|:3306): refused"),
            ("db.example:1, localhost:2", "(db.example|:1), (localhost|:2)"),
            ("tls://nats-1:4222", "(tls:&#x2f;&#x2f;nats-1|:4222)"),
        ] {
            assert_eq!(shown(text), html);
        }
    }

    #[test]
    fn all_else_is_text() {
        for text in
            ["", "12:30", "at 12:30:15", "key:value", "a:123456", "a:1b", "http://host/x", ":80", "ä:80"]
        {
            assert_eq!(whole(text), HtmlEscape(text).to_string());
        }
        assert_eq!(shown("<b>:5000"), "&lt;b&gt;:5000");
    }
}
