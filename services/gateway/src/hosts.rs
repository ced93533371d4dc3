//! The names under which this gateway answers.
//!
//! A web page may have its own name resolved to 127.0.0.1, and its scripts then talk to a gateway on the visitor's
//! machine as if it were the page's own server (DNS rebinding). The header `Host` shows it: it holds the page's name.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use axum::http::header::HOST;
use axum::http::{HeaderMap, Uri, Version};
use wire::words::shown;

use crate::error::Error;

/// The names in `ALLOWED_HOSTS`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedHosts(Vec<Pattern>);

/// One of them; names are in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    /// `*`
    Any,
    /// `*.example.com`: each name that ends so.
    Below(String),
    /// `example.com`
    Name(String),
}

/// The hosts that a request may be for.
#[derive(Debug, Clone)]
pub(crate) enum Hosts {
    /// Any. A page of another name has no token either.
    Any,
    /// IP addresses, `localhost` and these.
    These(AllowedHosts),
}

/// A host as `Host` and the target of a request name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Host<'a> {
    /// An address, which no page can have resolved to another one.
    Address,
    /// A name, without the dot that may stand at its end.
    Name(&'a str),
}

impl AllowedHosts {
    /// Whether none is set.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn include(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| match pattern {
            Pattern::Any => true,
            Pattern::Name(own) => own.eq_ignore_ascii_case(name),
            Pattern::Below(end) => {
                let split = name.len().checked_sub(end.len() + 1).and_then(|at| name.split_at_checked(at));
                split.is_some_and(|(front, rest)| {
                    !front.is_empty()
                        && rest.strip_prefix('.').is_some_and(|rest| rest.eq_ignore_ascii_case(end))
                })
            }
        })
    }
}

impl Hosts {
    /// Whether the request is for a host of ours.
    ///
    /// # Errors
    /// [`Error::BadRequest`] where RFC 9112, section 3.2, asks for it; [`Error::WrongHost`].
    pub(crate) fn check(&self, version: Version, uri: &Uri, headers: &HeaderMap) -> Result<(), Error> {
        let authority = match authority(uri, headers) {
            Ok(Some(authority)) => authority,
            // The protocol before had no such header, and no browser speaks it.
            Ok(None) if version == Version::HTTP_10 => return Ok(()),
            Ok(None) => return Err(bad("got none")),
            Err(got) => return Err(bad(&got)),
        };
        let Some((host, _)) = parse(authority) else {
            return Err(bad(&format!("got {}", shown(authority))));
        };
        match (self, host) {
            (Self::Any, _) | (_, Host::Address) => Ok(()),
            (_, Host::Name(name)) if name.eq_ignore_ascii_case("localhost") => Ok(()),
            (Self::These(allowed), Host::Name(name)) if allowed.include(name) => Ok(()),
            (_, Host::Name(name)) => Err(Error::WrongHost(name.to_string())),
        }
    }
}

fn bad(got: &str) -> Error {
    Error::BadRequest(format!(
        "Host must be given once, as a name or an address with or without a port, {got}"
    ))
}

/// Host and port of the request as the client wrote them. If its target has them, they count, whatever `Host` says
/// (RFC 9112, section 3.2.2). `None` without any. The error is the reason, if there are several or none can be read.
pub(crate) fn authority<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Result<Option<&'a str>, String> {
    let mut values = headers.get_all(HOST).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(format!("got {} of them", 2 + values.count()));
    }
    let Some(first) = first else { return Ok(None) };
    match uri.authority() {
        Some(authority) => Ok(Some(authority.as_str())),
        None => first.to_str().map(Some).map_err(|_| "got bytes that are no text".to_owned()),
    }
}

/// An origin, as a browser names the site that a script belongs to (RFC 6454): scheme, host and port. The port may be left
/// out where it is the usual one of the scheme. `None` if it is none of the web.
pub(crate) fn origin_of(text: &str) -> Option<(&str, &str, u16)> {
    let (scheme, site) = text.split_once("://")?;
    let usual = usual_port(scheme)?;
    let (host, port) = split(site)?;
    Some((scheme, host, port.unwrap_or(usual)))
}

/// Whether `origin` is the site that `authority` names. The port of either may be left out where it is the usual one.
pub(crate) fn is_same_site(origin: &str, authority: &str) -> bool {
    let (Some((scheme, site, site_port)), Some((host, port))) = (origin_of(origin), split(authority)) else {
        return false;
    };
    site.eq_ignore_ascii_case(host) && Some(site_port) == port.or(usual_port(scheme))
}

fn usual_port(scheme: &str) -> Option<u16> {
    match scheme {
        "https" => Some(443),
        "http" => Some(80),
        _ => None,
    }
}

/// Whether this is the name or the address of a host.
pub(crate) fn is_host(text: &str) -> bool {
    !text.is_empty() && parse(text).is_some()
}

/// Host and port in the value of `Host`; `None` if the host is neither a name nor an address.
fn parse(authority: &str) -> Option<(Host<'_>, Option<u16>)> {
    let (host, port) = split(authority)?;
    if let Some(address) = host.strip_prefix('[') {
        // Behind the percent sign stands which network a link-local address belongs to (RFC 6874).
        let address = address.strip_suffix(']')?.split('%').next()?;
        address.parse::<Ipv6Addr>().ok()?;
        return Some((Host::Address, port));
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&byte);
    if name.parse::<Ipv4Addr>().is_ok() {
        Some((Host::Address, port))
    } else {
        name.bytes().all(is_name).then_some((Host::Name(name), port))
    }
}

/// Splits the port off. The colons of an IPv6 address stand within brackets.
fn split(authority: &str) -> Option<(&str, Option<u16>)> {
    let end = authority.rfind(']').map_or(0, |at| at + 1);
    let (host, port) = match authority[end..].split_once(':') {
        Some((host, port)) => (&authority[..end + host.len()], port),
        None => (authority, ""),
    };
    if port.is_empty() {
        return Some((host, None));
    }
    let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| port.parse().ok())?.map(|port| (host, Some(port)))
}

impl FromStr for AllowedHosts {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        names.map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let (end, is_below) = match text.strip_prefix("*.") {
            Some(end) => (end, true),
            None => (text, false),
        };
        let name = end.strip_suffix('.').unwrap_or(end);
        let is_part = |part: &str| {
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        if !name.split('.').all(is_part) {
            return Err(format!(
                "must be host names apart by commas, without ports, such as images.example.com,*.example.org (other \
                 scripts as xn--…; * allows any), got {}",
                shown(text)
            ));
        }
        let name = name.to_ascii_lowercase();
        Ok(if is_below { Self::Below(name) } else { Self::Name(name) })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use proptest::prelude::*;

    fn status(allowed: &str, target: &str, hosts: &[&str]) -> u16 {
        let hosts_of_ours = Hosts::These(allowed.parse().unwrap());
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, host.parse().unwrap());
        }
        let checked = hosts_of_ours.check(Version::HTTP_11, &target.parse().unwrap(), &headers);
        checked.map_or_else(|error| error.status().as_u16(), |()| 200)
    }

    #[test]
    fn addresses_localhost_and_the_names_that_are_set_are_answered_and_no_others() {
        for ours in [
            "127.0.0.1",
            "127.0.0.1:5000",
            "10.1.2.3",
            "127.0.0.1.",
            "[::1]",
            "[::1]:5000",
            "[2001:db8::1]:80",
            "[fe80::1%25eth0]:80",
            "[fe80::1%eth0]",
            "localhost",
            "LocalHost:5000",
            "localhost.",
            "localhost:",
            "images.example.com",
            "IMAGES.example.COM.:443",
            "a.b.example.org",
            "a.example.org:1",
        ] {
            assert_eq!(status("images.example.com,*.Example.org", "/", &[ours]), 200, "{ours}");
        }
        for foreign in [
            "evil.example",
            "localhost.evil.example",
            "evil-localhost",
            "evil.localhost",
            "127.0.0.1.evil.example",
            "example.org",
            "xexample.org",
            ".example.org",
            "example.com",
            "images.example.com.evil.example",
            "images.example.com..",
            "127.1",
            "2130706433",
            "0x7f.0.0.1",
            "127.0.0.1%2eevil",
            "",
            ":80",
            "*",
            "%00",
        ] {
            assert_eq!(status("images.example.com,*.Example.org", "/", &[foreign]), 421, "{foreign}");
        }
        for broken in [
            "a b",
            "a/b",
            "a\\b",
            "user@127.0.0.1",
            "127.0.0.1:80:80",
            "::1",
            "[::1",
            "[::1]x",
            "[x]",
            "[v1.a]",
            "a:b",
            "a:65536",
            "a:+1",
            "a?b",
            "a#b",
            "<a>",
            "a\"b",
            "[::1][::1]",
            "x[::1]",
        ] {
            assert_eq!(status("*", "/", &[broken]), 400, "{broken}");
        }
        assert_eq!(status("*", "/", &["evil.example"]), 200);
        assert_eq!(status("", "/", &["\u{e9}vil.example"]), 400);
    }

    #[test]
    fn the_host_stands_there_once_and_that_of_the_target_counts() {
        assert_eq!(status("", "/", &[]), 400);
        assert_eq!(status("", "/", &["localhost", "localhost"]), 400);
        assert_eq!(status("", "/", &["localhost", "evil.example"]), 400);
        assert_eq!(status("", "http://evil.example/", &["localhost"]), 421);
        assert_eq!(status("", "http://127.0.0.1:1/", &["evil.example"]), 200);
        assert_eq!(status("", "http://127.0.0.1/", &[]), 400);
        assert_eq!(status("", "http://127.0.0.1@evil.example/", &["localhost"]), 400);
        assert_eq!(status("", "evil.example:443", &["localhost"]), 421);
        let old = Hosts::These(AllowedHosts::default());
        let mut headers = HeaderMap::new();
        old.check(Version::HTTP_10, &"/".parse().unwrap(), &headers).unwrap();
        headers.append(HOST, "evil.example".parse().unwrap());
        assert!(matches!(
            old.check(Version::HTTP_10, &"/".parse().unwrap(), &headers),
            Err(Error::WrongHost(_))
        ));
    }

    #[test]
    fn usual_ports_may_be_left_out() {
        for (origin, authority) in [
            ("https://example.com", "example.com:443"),
            ("https://example.com:443", "example.com"),
            ("http://example.com", "example.com:80"),
            ("http://EXAMPLE.com", "example.com"),
            ("http://[::1]:5000", "[::1]:5000"),
            ("http://[::1]", "[::1]:80"),
        ] {
            assert!(is_same_site(origin, authority), "{origin} {authority}");
        }
        for (origin, authority) in [
            ("https://example.com", "example.com:80"),
            ("http://example.com", "example.com:443"),
            ("http://example.com", "example.com:5000"),
            ("http://[::1]:5001", "[::1]:5000"),
            ("null", "null"),
            ("http://example.com.evil.example", "example.com"),
            ("file://", ""),
            ("http://a:x", "a"),
            ("chrome-extension://example.com", "example.com"),
        ] {
            assert!(!is_same_site(origin, authority), "{origin} {authority}");
        }
    }

    #[test]
    fn a_name_that_is_none_is_named() {
        for wrong in
            ["a b", "http://a", "a:80", "*", "a..b", "*.*.a", "a.*", "caf\u{e9}.example", "[::1]", "."]
        {
            let parsed = format!("localhost,{wrong}").parse::<AllowedHosts>();
            if wrong == "*" {
                parsed.unwrap();
            } else {
                assert!(parsed.unwrap_err().contains(&format!("got \"{wrong}\"")), "{wrong}");
            }
        }
        assert!(" , ".parse::<AllowedHosts>().unwrap().is_empty());
    }

    proptest! {
        /// Any text is a name that is set, an address, or no host of ours.
        #[test]
        fn any_text_is_judged(text in "[ -~]{0,40}") {
            let status = status("images.example.com", "/", &[text.as_str()]);
            let bare = text.trim_end_matches(|c: char| c == ':' || c.is_ascii_digit()).trim_end_matches('.');
            let is_ours = bare.eq_ignore_ascii_case("images.example.com")
                || bare.eq_ignore_ascii_case("localhost")
                || text.starts_with('[')
                || text.split(':').next().is_some_and(|host| host.trim_end_matches('.').parse::<Ipv4Addr>().is_ok());
            prop_assert!(status != 200 || is_ours, "{}", text);
        }
    }
}
