//! Requests to the hub: who is told the token, how long we wait, how often we try again.

use super::error::{Fault, HubError};
use super::settings::Settings;
use super::{Progress, Watch};
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};
use ureq::http::{HeaderMap, Response};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

/// How often one request is tried, or a download that makes no progress.
pub(super) const TRIES: u32 = 4;

/// Before the second try; three times as long before each further one.
const BACKOFF: Duration = Duration::from_millis(400);

/// The longest wait that a server may ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(120);

const REDIRECTS: usize = 8;

/// An answer with its headers, and those of the hub's own answer before it sent us elsewhere.
pub(super) struct Answer {
    pub(super) response: Response<Body>,
    pub(super) hub: HeaderMap,
}

/// Speaks to one endpoint.
#[derive(Debug)]
pub(super) struct Client {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    /// Headers alone, of the hub itself where it sends files from elsewhere.
    Head,
    /// The contents from this byte on.
    Get(u64),
}

impl Client {
    pub(super) fn new(settings: &Settings) -> Result<Self, HubError> {
        let roots = settings.certificates.as_deref().map_or(Ok(RootCerts::WebPki), certificates)?;
        let config = Agent::config_builder()
            // Redirects are followed here, because the token must not go with them.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .user_agent(concat!("headwater/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .timeout_resolve(Some(settings.timeout))
            .timeout_connect(Some(settings.timeout))
            .timeout_per_read(Some(settings.timeout))
            .timeout_per_write(Some(settings.timeout))
            .build();
        Ok(Self { agent: config.into(), endpoint: settings.endpoint.clone(), token: settings.token.clone() })
    }

    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Sends a request, and again while the server is busy or in trouble. The answer may be a refusal.
    pub(super) fn send(&self, method: Method, url: &str, watch: &mut Watch<'_>) -> Result<Answer, Fault> {
        let mut tried = 1;
        loop {
            let fault = match self.follow(method, url) {
                Ok(answer) => match trouble(&answer.response) {
                    None => return Ok(answer),
                    Some((what, wait)) => {
                        let message = format!("{} {what}", host(url));
                        if wait.is_some_and(|wait| wait > LONGEST_WAIT) || tried == TRIES {
                            return Err(Fault::Transient(format!("{message}; try again later")));
                        }
                        (message, wait)
                    }
                },
                Err(Fault::Transient(message)) if tried < TRIES => (message, None),
                Err(fault) => return Err(fault),
            };
            let (message, wait) = fault;
            let wait = wait.unwrap_or_else(|| backoff(tried));
            pause(wait, &message, watch)?;
            tried += 1;
        }
    }

    /// One request and the redirects it leads to.
    fn follow(&self, method: Method, url: &str) -> Result<Answer, Fault> {
        let mut url = url.to_owned();
        let mut hub: Option<HeaderMap> = None;
        for _ in 0..REDIRECTS {
            let is_hub = origin(&url) == origin(&self.endpoint);
            let mut request = match method {
                Method::Head => self.agent.head(&url),
                Method::Get(_) => self.agent.get(&url),
            };
            if let Method::Get(from @ 1..) = method {
                request = request.header("Range", format!("bytes={from}-"));
            }
            if let Some(token) = self.token.as_ref().filter(|_| is_hub) {
                request = request.header("Authorization", format!("Bearer {token}"));
            }
            let response = request.call().map_err(|error| transport(&url, &error))?;
            let headers = response.headers();
            let location = header(headers, "location").filter(|_| response.status().is_redirection());
            if is_hub {
                hub = Some(headers.clone());
            }
            let Some(location) = location else {
                let hub = hub.unwrap_or_else(|| headers.clone());
                return Ok(Answer { response, hub });
            };
            let next = join(&url, location);
            if origin(&url).starts_with("https:") && !next.starts_with("https:") {
                return Err(Fault::fatal(format!("{} sends us to {next}, which is not encrypted", host(&url))));
            }
            // The hub's own headers say all that is asked for, and who stores the file need not be asked.
            let is_away = origin(&next) != origin(&self.endpoint);
            if method == Method::Head && is_away && header(headers, "x-linked-etag").is_some() {
                let hub = headers.clone();
                return Ok(Answer { response, hub });
            }
            url = next;
        }
        Err(Fault::fatal(format!("{} sends us from one address to the next without end", host(&url))))
    }
}

/// The authorities in a file.
fn certificates(path: &Path) -> Result<RootCerts, HubError> {
    let fault = |why: &dyn std::fmt::Display| {
        HubError::Failed(format!("SSL_CERT_FILE names {}, which is no file of certificates: {why}", path.display()))
    };
    let text = std::fs::read(path).map_err(|error| fault(&error))?;
    let items = parse_pem(&text).collect::<Result<Vec<_>, _>>().map_err(|error| fault(&error))?;
    let found: Vec<_> = items
        .into_iter()
        .filter_map(|item| if let PemItem::Certificate(certificate) = item { Some(certificate) } else { None })
        .collect();
    if found.is_empty() { Err(fault(&"there is none in it")) } else { Ok(RootCerts::new_with_certs(&found)) }
}

/// How long to wait after a number of tries.
pub(super) fn backoff(tried: u32) -> Duration {
    BACKOFF * 3_u32.saturating_pow(tried.saturating_sub(1))
}

/// Waits, unless the watcher has enough.
pub(super) fn pause(wait: Duration, why: &str, watch: &mut Watch<'_>) -> Result<(), HubError> {
    let note = format!("{why}; trying again in {:.1} s", wait.as_secs_f64());
    let until = Instant::now() + wait;
    let mut note = Some(&*note);
    loop {
        if watch(Progress { note: note.take(), ..Progress::NONE }).is_break() {
            return Err(HubError::Stopped);
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(Duration::from_millis(100)));
    }
}

/// What keeps a server from answering for now, and how long it asks us to wait.
fn trouble(response: &Response<Body>) -> Option<(String, Option<Duration>)> {
    let code = response.status().as_u16();
    let wait = wait(response.headers()).map(Duration::from_secs);
    let what = match code {
        429 => {
            let asked = wait.map_or(String::new(), |wait| format!(" and asks to wait {} s", wait.as_secs()));
            format!("answers 429: too many requests{asked}")
        }
        408 | 500 | 502 | 503 | 504 => format!("answers {}: it is in trouble", response.status()),
        _ => return None,
    };
    Some((what, wait))
}

/// The seconds of a `Retry-After`, or of the `t` in `RateLimit: "api";r=0;t=55`.
fn wait(headers: &HeaderMap) -> Option<u64> {
    let later = header(headers, "retry-after").and_then(|text| text.trim().parse().ok());
    later.or_else(|| {
        header(headers, "ratelimit")?.split(';').find_map(|part| part.trim().strip_prefix("t=")?.parse().ok())
    })
}

/// A connection that failed.
pub(super) fn transport(url: &str, error: &ureq::Error) -> Fault {
    let host = host(url);
    match error {
        ureq::Error::HostNotFound => {
            Fault::Unreachable(format!("cannot reach {host}: no such host is known; is there a network?"))
        }
        ureq::Error::Io(error) if error.kind() == ErrorKind::ConnectionRefused => {
            Fault::Unreachable(format!("cannot reach {host}: the connection is refused; is HF_ENDPOINT right?"))
        }
        ureq::Error::Timeout(_) => Fault::Transient(format!("{host} does not answer in time")),
        ureq::Error::Io(error) => body(url, error),
        ureq::Error::Tls(_) | ureq::Error::Rustls(_) => Fault::fatal(format!("cannot speak to {host} safely: {error}")),
        ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::InvalidProxyUrl => {
            Fault::fatal(format!("cannot ask {host}: {error}"))
        }
        _ => Fault::Transient(format!("{host} sends something that is not HTTP ({error})")),
    }
}

/// The sentence for a server that is not who it says.
fn unsafe_connection(host: &str, error: &dyn std::fmt::Display) -> Fault {
    Fault::fatal(format!(
        "cannot speak to {host} safely ({error}); where a network has certificates of its own, SSL_CERT_FILE must name them"
    ))
}

/// A connection that was lost.
pub(super) fn body(url: &str, error: &std::io::Error) -> Fault {
    let host = host(url);
    // rustls reports what is wrong with a certificate or a record as this kind of error.
    if error.kind() == ErrorKind::InvalidData {
        return unsafe_connection(host, error);
    }
    Fault::Transient(match error.kind() {
        ErrorKind::TimedOut | ErrorKind::WouldBlock => format!("{host} does not answer in time"),
        ErrorKind::UnexpectedEof
        | ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::BrokenPipe => {
            format!("{host} ended the connection too early")
        }
        _ => format!("the connection to {host} failed ({error})"),
    })
}

pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Scheme, host and port of an address.
fn origin(url: &str) -> &str {
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = url[start..].find(['/', '?', '#']).map_or(url.len(), |at| start + at);
    &url[..end]
}

pub(super) fn host(url: &str) -> &str {
    let origin = origin(url);
    origin.split_once("://").map_or(origin, |(_, host)| host)
}

/// Where a `Location` leads.
fn join(url: &str, location: &str) -> String {
    if location.contains("://") && origin(location).split("://").next().is_some_and(|s| s == "http" || s == "https") {
        location.to_owned()
    } else if let Some(rest) = location.strip_prefix("//") {
        format!("{}://{rest}", url.split("://").next().unwrap_or("https"))
    } else if location.starts_with('/') {
        format!("{}{location}", origin(url))
    } else {
        let path = url.split(['?', '#']).next().unwrap_or(url);
        let folder = path.rfind('/').filter(|at| *at >= origin(url).len()).map_or(path, |at| &path[..at]);
        format!("{folder}/{location}")
    }
}

/// Percent-encodes all but unreserved characters and those in `keep`.
pub(super) fn quote(text: &str, keep: &str) -> String {
    let mut quoted = String::new();
    for byte in text.bytes() {
        let c = char::from(byte);
        if c.is_ascii_alphanumeric() || "-._~".contains(c) || keep.contains(c) {
            quoted.push(c);
        } else {
            quoted += &format!("%{byte:02X}");
        }
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_joined() {
        for (location, want) in [
            ("http://c.d/e?f=://", "http://c.d/e?f=://"),
            ("//c.d/e", "https://c.d/e"),
            ("/e?to=http://x", "https://a.b:1/e?to=http://x"),
            ("e", "https://a.b:1/p/e"),
        ] {
            assert_eq!(join("https://a.b:1/p/q?r=/s", location), want);
        }
        assert_eq!(join("https://a.b", "e"), "https://a.b/e");
    }

    #[test]
    fn a_host_with_another_port_or_name_is_another() {
        let hub = origin("https://hub.co/a/b");
        assert_eq!(hub, origin("https://hub.co?x"));
        for other in ["http://hub.co/", "https://hub.co:8443/", "https://hub.co.evil.org/", "https://cdn.hub.co/"] {
            assert_ne!(hub, origin(other));
        }
    }

    #[test]
    fn names_are_quoted() {
        assert_eq!(quote("a b/ü%.json", "/"), "a%20b/%C3%BC%25.json");
        assert_eq!(quote("refs/pr/1", ""), "refs%2Fpr%2F1");
    }
}
