use super::error::HubError;
use std::cell::RefCell;
use std::env::VarError;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The public hub.
const ENDPOINT: &str = "https://huggingface.co";

/// Where the hub is, where its files are kept, and who asks. The defaults are those of `huggingface_hub`.
#[derive(Clone)]
pub struct Settings {
    /// The hub's address without a slash at its end.
    pub endpoint: String,
    /// The folder of all cached repositories.
    pub cache: PathBuf,
    /// Sent to the endpoint, and to nobody else.
    pub token: Option<String>,
    /// Whether only the cache may be used.
    pub offline: bool,
    /// Whether files are put into snapshots themselves, as on systems without symbolic links.
    pub no_symlinks: bool,
    /// How long a server may say nothing.
    pub timeout: Duration,
    /// A file of certificate authorities (PEM) to trust instead of Mozilla's list: of a company's network, say.
    pub certificates: Option<PathBuf>,
}

impl std::fmt::Debug for Settings {
    /// Everything but the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { endpoint, cache, offline, no_symlinks, timeout, token, certificates } = self;
        let token = token.as_ref().map(|_| "(secret)");
        f.debug_struct("Settings")
            .field("endpoint", endpoint)
            .field("cache", cache)
            .field("token", &token)
            .field("offline", offline)
            .field("no_symlinks", no_symlinks)
            .field("timeout", timeout)
            .field("certificates", certificates)
            .finish()
    }
}

impl Settings {
    /// Reads the environment.
    ///
    /// # Errors
    /// When a variable makes no sense, or the token's file cannot be read.
    pub fn from_env() -> Result<Self, HubError> {
        let garbled = RefCell::new(None);
        let variable = |name: &str| match std::env::var(name) {
            Err(VarError::NotUnicode(_)) => {
                garbled.replace(Some(name.to_owned()));
                None
            }
            value => value.ok(),
        };
        let settings = Self::from(&variable, std::env::home_dir());
        match garbled.take() {
            Some(name) => Err(HubError::Usage(format!("the variable {name} is not valid text"))),
            None => settings,
        }
    }

    fn from(variable: &dyn Fn(&str) -> Option<String>, home: Option<PathBuf>) -> Result<Self, HubError> {
        let get = |name: &str| variable(name).filter(|value| !value.is_empty());
        let home = home.unwrap_or_else(|| PathBuf::from("."));
        let path = |name: &str| get(name).map(|value| expand(&value, &home));
        let is_set = |name: &str| get(name).is_some_and(|v| ["1", "ON", "YES", "TRUE"].contains(&&*v.to_uppercase()));
        let hf_home = path("HF_HOME")
            .unwrap_or_else(|| path("XDG_CACHE_HOME").unwrap_or_else(|| home.join(".cache")).join("huggingface"));
        let cache =
            path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE")).unwrap_or_else(|| hf_home.join("hub"));
        let endpoint = get("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned()).trim_end_matches('/').to_owned();
        if !["https://", "http://"].iter().any(|scheme| endpoint.starts_with(scheme)) {
            let message = format!("HF_ENDPOINT is {endpoint:?}, which begins with neither https:// nor http://");
            return Err(HubError::Usage(message));
        }
        let token = if is_set("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
            None
        } else {
            let file = path("HF_TOKEN_PATH").unwrap_or_else(|| hf_home.join("token"));
            token(get("HF_TOKEN").or_else(|| get("HUGGING_FACE_HUB_TOKEN")), &file)?
        };
        let timeout = match get("HF_HUB_DOWNLOAD_TIMEOUT") {
            None => 10,
            Some(text) => text.parse().ok().filter(|seconds| *seconds > 0).ok_or_else(|| {
                HubError::Usage(format!("HF_HUB_DOWNLOAD_TIMEOUT is {text:?}, which is no number of seconds"))
            })?,
        };
        Ok(Self {
            endpoint,
            cache,
            token,
            offline: is_set("HF_HUB_OFFLINE") || is_set("TRANSFORMERS_OFFLINE"),
            no_symlinks: is_set("HF_HUB_DISABLE_SYMLINKS"),
            timeout: Duration::from_secs(timeout),
            certificates: path("SSL_CERT_FILE").or_else(|| path("REQUESTS_CA_BUNDLE")),
        })
    }
}

fn expand(value: &str, home: &Path) -> PathBuf {
    match value.strip_prefix('~') {
        Some("") => home.to_owned(),
        Some(rest) if rest.starts_with('/') => home.join(&rest[1..]),
        _ => PathBuf::from(value),
    }
}

/// The token of the environment, else of the file in which `hf auth login` keeps it.
fn token(variable: Option<String>, file: &Path) -> Result<Option<String>, HubError> {
    let (from, text) = match variable {
        Some(text) => ("HF_TOKEN".to_owned(), text),
        None => match std::fs::read_to_string(file) {
            Ok(text) => (file.display().to_string(), text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(HubError::Failed(format!("cannot read the token in {}: {error}", file.display())));
            }
        },
    };
    let text = text.trim();
    if text.chars().any(|c| !c.is_ascii_graphic()) {
        return Err(HubError::Usage(format!("the token in {from} has characters that no token has; make a new one")));
    }
    Ok(Some(text.to_owned()).filter(|text| !text.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Result<Settings, HubError> {
        let get = |name: &str| variables.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).to_owned());
        Settings::from(&get, Some(PathBuf::from("/home/u")))
    }

    #[test]
    fn caches_lie_where_python_looks() {
        for (variables, cache) in [
            (&[][..], "/home/u/.cache/huggingface/hub"),
            (&[("XDG_CACHE_HOME", "/x")], "/x/huggingface/hub"),
            (&[("XDG_CACHE_HOME", "/x"), ("HF_HOME", "~/h")], "/home/u/h/hub"),
            (&[("HF_HOME", "/h"), ("HUGGINGFACE_HUB_CACHE", "/old")], "/old"),
            (&[("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HUB_CACHE", "/new")], "/new"),
            (&[("HF_HOME", "")], "/home/u/.cache/huggingface/hub"),
        ] {
            assert_eq!(settings(variables).expect("valid").cache, Path::new(cache), "{variables:?}");
        }
    }

    #[test]
    fn values_are_read_as_python_reads_them() {
        let plain = settings(&[]).expect("valid");
        assert_eq!((&*plain.endpoint, plain.offline, plain.token), (ENDPOINT, false, None));
        let set = settings(&[("HF_ENDPOINT", "http://h/"), ("HF_HUB_OFFLINE", "yes"), ("HF_TOKEN", " hf_x\n")]);
        let set = set.expect("valid");
        assert_eq!((&*set.endpoint, set.offline, set.token.as_deref()), ("http://h", true, Some("hf_x")));
        assert!(!format!("{set:?}").contains("hf_x"));
        for (name, value) in [("HF_ENDPOINT", "ftp://h"), ("HF_TOKEN", "a b"), ("HF_HUB_DOWNLOAD_TIMEOUT", "soon")] {
            assert!(matches!(settings(&[(name, value)]), Err(HubError::Usage(why)) if why.contains(name)), "{name}");
        }
    }
}
