//! Who may ask: checks of host, origin and key, before anything of a request is read, and the headers of every answer.
//!
//! A page of any site may make a browser send requests to a server on the same machine. What keeps it out is the `Host` that the browser names
//! (a foreign name that was rebound to this machine's address is not ours), and the `Origin` and `Sec-Fetch-Site` that no page can forge.

use super::super::super::error::CliError;
use super::super::App;
use super::super::order::shortened;
use super::super::ticket::Owner;
use super::error::{ApiError, Dialect};
use super::page;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::FutureExt as _;
use sha2::{Digest as _, Sha256};
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use subtle::ConstantTimeEq as _;

/// What the command line says of who may ask.
#[derive(Debug)]
pub(in super::super) struct Guard {
    is_loopback: bool,
    /// Names besides `localhost` and addresses, in lower case.
    hosts: Vec<String>,
    /// Other sites, as `scheme://host[:port]`.
    origins: Vec<String>,
    /// Hashes, all of one length, so that comparing them tells nothing.
    keys: Vec<[u8; 32]>,
}

/// What a client calls itself, to tell its jobs from those of others with the same key.
const CLIENT: &str = "x-headwater-client";

impl Guard {
    pub(in super::super) fn new(
        host: IpAddr,
        hosts: &[String],
        origins: &[String],
        keys: &[String],
    ) -> Result<Self, CliError> {
        for origin in origins {
            let uri = origin.parse::<Uri>().ok();
            let is_origin = uri.is_some_and(|uri| {
                uri.scheme().is_some() && uri.authority().is_some() && uri.path() == "/" && !origin.ends_with('/')
            });
            if !is_origin {
                let message = format!("--allowed-origin {origin} is none: write it as https://example.com");
                return Err(CliError::Usage(message));
            }
        }
        if let Some(name) = hosts.iter().find(|name| name.contains(['/', '@', '*']) || name.is_empty()) {
            return Err(CliError::Usage(format!("--allowed-host {name} is no name: write it as example.com")));
        }
        if keys.iter().any(|key| key.trim().is_empty()) {
            return Err(CliError::Usage("--api-key is empty: anybody would have it".into()));
        }
        Ok(Self {
            is_loopback: host.is_loopback(),
            hosts: hosts.iter().map(|name| name.to_lowercase()).collect(),
            origins: origins.iter().map(|origin| origin.to_lowercase()).collect(),
            keys: keys.iter().map(|key| Sha256::digest(key.as_bytes()).into()).collect(),
        })
    }

    /// Whether the host that a request names is this server. An address is none that a name was rebound to.
    fn check_host(&self, uri: &Uri, headers: &HeaderMap) -> Result<String, ApiError> {
        let refuse = |host: &str| {
            let message = format!(
                "{:?} is not a name of this server: whoever runs it can add names with --allowed-host",
                shortened(host)
            );
            Err(ApiError::new(StatusCode::MISDIRECTED_REQUEST, "unknown_host", message))
        };
        let mut named = headers.get_all(header::HOST).iter();
        let host = match (named.next(), named.next()) {
            (Some(host), None) => host.to_str().unwrap_or_default().to_lowercase(),
            _ => return refuse(""),
        };
        let other = uri.authority().map(|authority| authority.as_str().to_lowercase());
        if other.is_some_and(|other| other != host) {
            return refuse(&host);
        }
        let name = host_name(&host);
        let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
        let is_ours = match address {
            Some(address) => address.is_loopback() || !self.is_loopback,
            None => name == "localhost",
        };
        if is_ours || self.hosts.iter().any(|own| own == name || *own == host) { Ok(host) } else { refuse(&host) }
    }

    /// Whether the page that sends a request, if one does, is ours or one that is allowed; the origin that is to be told so.
    fn check_origin(&self, method: &Method, host: &str, headers: &HeaderMap) -> Result<Option<HeaderValue>, ApiError> {
        let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?").to_lowercase());
        let refuse = |origin: &str| {
            let message = format!(
                "pages of {:?} may not use this server: whoever runs it can allow a site with --allowed-origin",
                shortened(origin)
            );
            Err(ApiError::new(StatusCode::FORBIDDEN, "foreign_origin", message))
        };
        if let Some(origin) = text(header::ORIGIN) {
            if self.origins.contains(&origin) {
                return Ok(headers.get(header::ORIGIN).cloned());
            }
            // Behind a proxy that speaks TLS, a page of ours is one of https.
            let own = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
            return if own == Some(host) { Ok(None) } else { refuse(&origin) };
        }
        let site = text(HeaderName::from_static("sec-fetch-site"));
        if site.is_none_or(|site| site == "same-origin" || site == "none") {
            return Ok(None);
        }
        // Somebody followed a link to us: they look at what they get, and the page that they came from does not.
        let is = |name, value: &str| text(HeaderName::from_static(name)).is_some_and(|own| own == value);
        let is_link = is("sec-fetch-mode", "navigate") && is("sec-fetch-dest", "document");
        if method == Method::GET && is_link { Ok(None) } else { refuse("another site") }
    }

    /// Whose request it is.
    fn check_key(&self, headers: &HeaderMap) -> Result<Owner, ApiError> {
        let client = headers.get(CLIENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let owner = |key| Owner { key, client: client.chars().take(64).collect() };
        if self.keys.is_empty() {
            return Ok(owner(None));
        }
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let (scheme, credentials) = given.split_once(' ').unwrap_or_default();
        let candidates = match scheme.to_ascii_lowercase().as_str() {
            "bearer" => vec![credentials.trim().as_bytes().to_vec()],
            // A key is the password of any user, or, where it has a colon in it, both.
            "basic" => {
                let both = STANDARD.decode(credentials.trim()).unwrap_or_default();
                let colon = both.iter().position(|byte| *byte == b':');
                let password = colon.map(|at| both[at + 1..].to_vec()).unwrap_or_default();
                vec![password, both]
            }
            _ => Vec::new(),
        };
        let mut found = None;
        for candidate in candidates {
            let hash = Sha256::digest(&candidate);
            // All are looked at, whichever fits.
            for (index, key) in self.keys.iter().enumerate() {
                if bool::from(key.ct_eq(hash.as_slice())) {
                    found = Some(index);
                }
            }
        }
        let message =
            "a key is needed that this server knows: as Authorization: Bearer KEY, or as the password of Basic";
        found
            .map(|key| owner(Some(key)))
            .ok_or_else(|| ApiError::new(StatusCode::UNAUTHORIZED, "invalid_api_key", message))
    }
}

/// A host without its port.
fn host_name(host: &str) -> &str {
    match host.rfind(':') {
        // Not one within an address in brackets.
        Some(at) if host[at..].bytes().skip(1).all(|b| b.is_ascii_digit()) && !host[at..].contains(']') => &host[..at],
        _ => host,
    }
}

/// Addresses that need no key: they tell nothing of anybody.
const OPEN: [&str; 1] = ["/healthz"];

/// Lets a request through to its route, or not.
pub(super) async fn check(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let guard = &app.guard;
    let dialect = Dialect::of(&path);
    let checked = guard.check_host(request.uri(), request.headers()).and_then(|host| {
        let origin = guard.check_origin(request.method(), &host, request.headers())?;
        Ok((host, origin))
    });
    let (mut response, origin) = match checked {
        Err(error) => (error.response(dialect), None),
        // A browser asks before it sends what a page wants; it has no key then.
        Ok((_, Some(origin))) if request.method() == Method::OPTIONS => (preflight(), Some(origin)),
        Ok((host, origin)) => {
            let owner =
                if OPEN.contains(&path.as_str()) { Ok(Owner::default()) } else { guard.check_key(request.headers()) };
            let response = match owner {
                Err(error) => error.response(dialect),
                Ok(owner) => {
                    request.extensions_mut().insert(owner);
                    request.extensions_mut().insert(Host(host));
                    // A panic is a fault of ours, and ends this request alone.
                    let answer = AssertUnwindSafe(next.run(request)).catch_unwind().await;
                    answer.unwrap_or_else(|_| {
                        let message = "the program failed at this; please report it";
                        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "fault", message).response(dialect)
                    })
                }
            };
            (response, origin)
        }
    };
    app.metrics.response(response.status().as_u16());
    protect(response.headers_mut(), path == "/");
    if let Some(origin) = origin {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("location, retry-after"));
        headers.insert("cross-origin-resource-policy", HeaderValue::from_static("cross-origin"));
    }
    response
}

/// The host that a request names, checked.
#[derive(Debug, Clone)]
pub(super) struct Host(pub(super) String);

fn preflight() -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let allowed = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, DELETE"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "authorization, content-type, last-event-id, x-headwater-client"),
        (header::ACCESS_CONTROL_MAX_AGE, "600"),
    ];
    for (name, value) in allowed {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// What browsers may do with an answer: nothing but show it, and only the page runs its own script.
fn protect(headers: &mut HeaderMap, is_page: bool) {
    let policy = if is_page {
        page::policy()
    } else {
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'; sandbox")
    };
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
        ("permissions-policy", "camera=(), microphone=(), geolocation=()"),
        ("vary", "origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(host: &str, keys: &[&str]) -> Guard {
        let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        let host = host.parse().expect("an address");
        Guard::new(host, &["box.example".to_owned()], &["https://site.example".to_owned()], &keys).expect("valid")
    }

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        list.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().expect("a value"))).collect()
    }

    #[test]
    fn only_our_own_hosts_are_answered() {
        let root = Uri::from_static("/");
        for (bound, host, ours) in [
            ("127.0.0.1", "localhost:7868", true),
            ("127.0.0.1", "LOCALHOST", true),
            ("127.0.0.1", "127.0.0.1:7868", true),
            ("127.0.0.1", "127.8.0.1", true),
            ("127.0.0.1", "[::1]:7868", true),
            ("127.0.0.1", "box.example", true),
            ("127.0.0.1", "box.example:443", true),
            ("127.0.0.1", "192.168.0.7:7868", false),
            ("0.0.0.0", "192.168.0.7:7868", true),
            ("0.0.0.0", "evil.example", false),
            ("127.0.0.1", "evil.example:7868", false),
            ("127.0.0.1", "localhost.evil.example", false),
            ("127.0.0.1", "evil.example@localhost", false),
            ("127.0.0.1", "127.0.0.1.evil.example", false),
            ("127.0.0.1", "", false),
        ] {
            let checked = guard(bound, &[]).check_host(&root, &headers(&[("host", host)]));
            assert_eq!(checked.is_ok(), ours, "{bound} {host}");
        }
        let guard = guard("127.0.0.1", &[]);
        assert!(guard.check_host(&root, &HeaderMap::new()).is_err(), "no host");
        let both = Uri::from_static("http://evil.example/");
        assert!(guard.check_host(&both, &headers(&[("host", "localhost")])).is_err(), "two that differ");
    }

    #[test]
    fn only_pages_of_our_own_may_ask() {
        let host = "localhost:7868";
        let link = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
        let frame = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")];
        for (method, list, may) in [
            (Method::POST, &[][..], true),
            (Method::POST, &[("origin", "http://localhost:7868")], true),
            (Method::POST, &[("origin", "https://localhost:7868")], true),
            (Method::POST, &[("origin", "https://site.example")], true),
            (Method::POST, &[("origin", "null")], false),
            (Method::POST, &[("origin", "http://localhost:9999")], false),
            (Method::POST, &[("origin", "http://evil.example")], false),
            (Method::GET, &[("origin", "http://evil.example")], false),
            (Method::GET, &[("sec-fetch-site", "same-origin")], true),
            (Method::GET, &[("sec-fetch-site", "none")], true),
            (Method::GET, &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")], false),
            (Method::GET, &[("sec-fetch-site", "same-site")], false),
            (Method::GET, &link, true),
            (Method::POST, &link, false),
            (Method::GET, &frame, false),
        ] {
            let checked = guard("127.0.0.1", &[]).check_origin(&method, host, &headers(list));
            assert_eq!(checked.is_ok(), may, "{method} {list:?}");
        }
    }

    #[test]
    fn keys_are_bearer_or_basic() {
        let guard = guard("0.0.0.0", &["secret", "user:pass"]);
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        for (given, key) in [
            ("Bearer secret", Some(0)),
            ("bearer secret", Some(0)),
            (&basic("anybody:secret"), Some(0)),
            (&basic("user:pass"), Some(1)),
            (&basic("other:pass"), None),
            ("Bearer wrong", None),
            ("Bearer ", None),
            ("Bearer", None),
            ("secret", None),
            ("Basic %%%", None),
            ("", None),
        ] {
            let owner = guard.check_key(&headers(&[("authorization", given)]));
            assert_eq!(owner.ok().and_then(|owner| owner.key), key, "{given}");
        }
        assert!(guard.check_key(&HeaderMap::new()).is_err());
    }
}
