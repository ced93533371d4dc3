//! Access: a change needs the token, and so does a read if everything is private.
//!
//! The open routes are listed, and every other route needs the token. So a new route is protected until somebody lists
//! it as one that only reads.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use axum::http::{HeaderMap, HeaderValue, Method, Request, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest as _, Sha256};

use super::attempts::Attempts;
use crate::config::{Config, ConfigError};
use crate::error::Error;
use crate::hosts::Hosts;
use crate::routes::answer::RESOURCE_POLICY;
use crate::visitor::{TrustedProxies, Visitor, is_forwarded};

/// The routes that `GET` and `HEAD` only read, as the router knows them.
const READS: &[&str] = &[
    "/",
    "/api/cache",
    "/api/images",
    "/api/images/",
    "/api/images/{*key}",
    "/api/openapi.json",
    "/api/stats",
    "/cache_properties",
    "/cache_properties/clear",
    "/cache_properties/delete_all",
    "/cache_stats",
    "/events/keys",
    "/events/stats",
    "/favicon.ico",
    "/healthz",
    "/image",
    "/image/delete",
    "/image/invalidate",
    "/images/",
    "/images/{*key}",
    "/keys_list",
    "/keys_list/delete",
    "/live",
    "/metrics",
    "/readyz",
    "/static/{*path}",
    "/system",
    "/upload_image",
];
/// The routes that `POST` only reads, as existing clients do.
const READS_BY_POST: [&str; 3] = ["/api/key/", "/api/key/{*key}", "/api/list_keys"];
/// The routes that stay open though everything is private: a probe has no token, and the pages' own files hold nothing
/// private.
const NEVER_PRIVATE: [&str; 4] = ["/healthz", "/readyz", "/static/{*path}", "/favicon.ico"];

/// The address at the other end of the connection: that of a client, or of a proxy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

impl Default for Peer {
    /// This machine, for a request that came over no connection.
    fn default() -> Self {
        Self(Ipv4Addr::LOCALHOST.into())
    }
}

/// Decides which requests are let in.
#[derive(Clone)]
pub(crate) struct Gate {
    /// Differs in each life of the process. So no client can compute the digest of a guess, and the time of a
    /// comparison reveals nothing about the token.
    salt: [u8; 32],
    /// The digest of salt and token, if a token is set.
    digest: Option<[u8; 32]>,
    is_private: bool,
    hosts: Hosts,
    proxies: TrustedProxies,
    attempts: Attempts,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("needs_token", &self.digest.is_some())
            .field("is_private", &self.is_private)
            .finish_non_exhaustive()
    }
}

impl Gate {
    /// The gate that the settings ask for.
    ///
    /// # Errors
    /// The errors of [`Config::go_together`].
    pub(crate) fn new(config: &Config) -> Result<Self, ConfigError> {
        config.go_together()?;
        let salt: [u8; 32] = rand::random();
        let digest = config.admin_token.as_set().map(|token| digest(&salt, token.as_bytes()));
        let hosts = if digest.is_some() && config.allowed_hosts.is_empty() {
            Hosts::Any
        } else {
            Hosts::These(config.allowed_hosts.clone())
        };
        let proxies = config.trusted_proxies.clone();
        Ok(Self { salt, digest, is_private: config.private, hosts, proxies, attempts: Attempts::default() })
    }

    /// Refuses a request that is meant for another host.
    ///
    /// # Errors
    /// The errors of [`Hosts::check`].
    pub(crate) fn check_host<B>(&self, request: &Request<B>) -> Result<(), Error> {
        self.hosts.check(request.version(), request.uri(), request.headers())
    }

    /// Whether the peer is a trusted proxy, which names the client that asks.
    pub(crate) fn trusts(&self, peer: Peer) -> bool {
        self.proxies.include(peer.0)
    }

    /// The client that asks: the peer, or the one that a trusted proxy names.
    pub(crate) fn visitor(&self, peer: Peer, headers: &HeaderMap) -> Visitor {
        self.proxies.visitor(peer.0, headers)
    }

    /// Whether a request with this method and route needs the token.
    pub(crate) fn needs_token(&self, method: &Method, route: Option<&str>) -> bool {
        let is_open = !self.is_private || route.is_some_and(|route| NEVER_PRIVATE.contains(&route));
        self.digest.is_some() && !(is_open && only_reads(method, route))
    }

    /// Lets a request in, or says why not. `route` is the route that it matched, if any.
    ///
    /// # Errors
    /// [`Error::NoToken`], [`Error::WrongToken`] and [`Error::TooManyTokens`].
    pub(crate) fn admit(
        &self,
        method: &Method,
        route: Option<&str>,
        headers: &HeaderMap,
        peer: Peer,
    ) -> Result<(), Error> {
        // A probe with a token gets more details: see `routes::health`.
        let is_told_more =
            self.is_private && route == Some("/readyz") && headers.contains_key(header::AUTHORIZATION);
        if !is_told_more && !self.needs_token(method, route) {
            return Ok(());
        }
        let judged = self.judge(headers, peer);
        if matches!(judged, Err(Error::WrongToken)) {
            let visitor = self.visitor(peer, headers);
            if self.attempts.was_wrong(visitor) {
                let through_a_proxy = is_forwarded(headers) && !self.proxies.include(peer.0);
                tracing::warn!(
                    %visitor,
                    through_a_proxy,
                    "wrong tokens come from one address again and again, and are not looked at for a while; if that is \
                     a proxy, name it in TRUSTED_PROXIES"
                );
            }
        }
        judged
    }

    /// Whether [`Gate::admit`] would let a request in. A wrong token is not counted here.
    pub(super) fn admits(
        &self,
        method: &Method,
        route: Option<&str>,
        headers: &HeaderMap,
        peer: Peer,
    ) -> bool {
        !self.needs_token(method, route) || self.judge(headers, peer).is_ok()
    }

    /// Checks the token, unless too many wrong ones have come from its address.
    fn judge(&self, headers: &HeaderMap, peer: Peer) -> Result<(), Error> {
        let given = headers.get(header::AUTHORIZATION).ok_or(Error::NoToken)?;
        let visitor = self.visitor(peer, headers);
        self.attempts.may_try(visitor).map_err(|wait_s| Error::TooManyTokens { wait_s })?;
        let token = token_in(given.as_bytes()).ok_or(Error::WrongToken)?;
        if self.digest != Some(digest(&self.salt, &token)) {
            return Err(Error::WrongToken);
        }
        self.attempts.was_right(visitor);
        Ok(())
    }

    /// Keeps the answer to a client with the token private, if everything is: no shared cache stores it, and no other
    /// web site shows it.
    pub(super) fn keep_private(&self, headers: &mut HeaderMap) {
        if !self.is_private {
            return;
        }
        let given = headers.get(header::CACHE_CONTROL).and_then(|value| value.to_str().ok());
        let value = private(given.unwrap_or_default());
        headers.insert(
            header::CACHE_CONTROL,
            HeaderValue::from_str(&value).unwrap_or(HeaderValue::from_static("private, no-store")),
        );
        headers.insert(RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
    }
}

/// Whether a request is known to change nothing. A read of a path without a route is one: its answer is a 404.
pub(super) fn only_reads(method: &Method, route: Option<&str>) -> bool {
    match (method, route) {
        (&Method::GET | &Method::HEAD, None) => true,
        (&Method::GET | &Method::HEAD, Some(route)) => READS.contains(&route),
        (&Method::POST, Some(route)) => READS_BY_POST.contains(&route),
        _ => false,
    }
}

fn digest(salt: &[u8], token: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(salt).chain_update(token).finalize().into()
}

/// Whether a header `Authorization` is of the kind that a browser never sends by itself.
pub(super) fn is_bearer(authorization: &HeaderValue) -> bool {
    let scheme = authorization.as_bytes().split(|byte| *byte == b' ').next();
    scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer"))
}

/// The token in a header `Authorization`: `Bearer` with it, or `Basic` with it as the password of any user.
fn token_in(authorization: &[u8]) -> Option<Vec<u8>> {
    let at = authorization.iter().position(|byte| *byte == b' ')?;
    let (scheme, given) = (&authorization[..at], authorization[at..].trim_ascii());
    if scheme.eq_ignore_ascii_case(b"bearer") {
        Some(given.to_vec())
    } else if scheme.eq_ignore_ascii_case(b"basic") {
        let pair = BASE64.decode(given).ok()?;
        let colon = pair.iter().position(|byte| *byte == b':')?;
        Some(pair[colon + 1..].to_vec())
    } else {
        None
    }
}

/// `Cache-Control` with `private`, and without the directives that allow shared caches to keep an answer.
fn private(cache_control: &str) -> String {
    let allows_others = |directive: &str| {
        let name = directive.split('=').next().unwrap_or_default().trim();
        ["public", "private", "s-maxage"].iter().any(|other| name.eq_ignore_ascii_case(other))
    };
    let directives = cache_control.split(',').map(str::trim);
    let kept = directives.filter(|directive| !directive.is_empty() && !allows_others(directive));
    std::iter::once("private").chain(kept).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_to_read_needs_the_token() {
        assert!(only_reads(&Method::GET, Some("/images/{*key}")));
        assert!(only_reads(&Method::POST, Some("/api/list_keys")));
        assert!(!only_reads(&Method::GET, Some("/a/route/of/tomorrow")));
        assert!(!only_reads(&Method::POST, Some("/api/images")));
        assert!(!only_reads(&Method::OPTIONS, Some("/images/{*key}")));
        assert!(!only_reads(&Method::POST, None));
    }

    #[test]
    fn a_token_comes_as_bearer_or_as_password() {
        let token =
            |text: &str| token_in(text.as_bytes()).map(|token| String::from_utf8_lossy(&token).into());
        let found = |text: &str| Some(String::from(text));
        assert_eq!(token("Bearer abc"), found("abc"));
        assert_eq!(token("bEARER   abc "), found("abc"));
        assert_eq!(token(&format!("Basic {}", BASE64.encode("me:abc"))), found("abc"));
        assert_eq!(token(&format!("basic {}", BASE64.encode(":a:b"))), found("a:b"));
        for other in ["", "abc", "Bearer", "Basic abc", "Basic !", "Digest abc"] {
            assert_eq!(token(other), None, "{other}");
        }
        assert_eq!(token(&format!("Basic {}", BASE64.encode("abc"))), None);
    }

    #[test]
    fn a_private_answer_is_kept_by_nobody_else() {
        assert_eq!(private(""), "private");
        assert_eq!(private("no-cache"), "private, no-cache");
        assert_eq!(private("public, max-age=60, s-maxage=9"), "private, max-age=60");
        assert_eq!(private("Private, immutable"), "private, immutable");
    }
}
