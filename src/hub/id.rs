use super::error::HubError;
use models::is_inside;
use std::fmt;
use std::str::FromStr;

/// The revision that is meant when none is named.
const MAIN: &str = "main";

/// Files that can be asked for one at a time, by their endings.
const SINGLE_FILES: &[&str] = &[".safetensors", ".gguf"];

/// Endings of files; a repository's name with one of them is rather a path that somebody mistyped.
const FILES: &[&str] = &[".safetensors", ".gguf", ".ckpt", ".bin", ".pt", ".pth", ".json", ".png", ".onnx"];

/// A model on a hub: `OWNER/REPO`, `OWNER/REPO@REVISION`, or one file of it, `OWNER/REPO/PATH.safetensors@REVISION`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubId {
    /// Whose it is.
    pub owner: String,
    /// Its name.
    pub name: String,
    /// A branch, a tag or a commit.
    pub revision: String,
    /// One file, by its path in the repository; the whole pipeline if absent.
    pub file: Option<String>,
}

impl HubId {
    /// `OWNER/REPO`.
    #[must_use]
    pub fn repository(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }

    /// Whether the revision is a whole commit hash, which never means anything else.
    pub(super) fn names_a_commit(&self) -> bool {
        self.revision.len() == 40 && self.revision.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    }
}

impl fmt::Display for HubId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)?;
        if let Some(file) = &self.file {
            write!(f, "/{file}")?;
        }
        if self.revision != MAIN {
            write!(f, "@{}", self.revision)?;
        }
        Ok(())
    }
}

impl FromStr for HubId {
    type Err = HubError;

    /// # Errors
    /// When the text is no such id.
    fn from_str(text: &str) -> Result<Self, HubError> {
        let wrong =
            |why: &str| Err(HubError::Usage(format!("{text:?} is no id of a hub (OWNER/REPO@REVISION): {why}")));
        if let Some(copied) = from_address(text) {
            return copied.parse();
        }
        let (path, revision) = text.split_once('@').unwrap_or((text, MAIN));
        let mut parts = path.splitn(3, '/');
        let (Some(owner), Some(name), file) = (parts.next(), parts.next(), parts.next()) else {
            return wrong("it has no slash");
        };
        if !is_name(owner) || !is_name(name) {
            return wrong("names are of letters, digits, single - and ., and _");
        }
        if file.is_none() && FILES.iter().any(|end| name.ends_with(end)) {
            return wrong("the repository's name looks like a file's");
        }
        if let Some(file) = file {
            if !is_inside(file) {
                return wrong("the file's path leads out of the repository");
            }
            if !SINGLE_FILES.iter().any(|end| file.ends_with(end)) {
                return wrong("a file must be .safetensors or .gguf");
            }
        }
        let fits = |c: char| c.is_ascii_alphanumeric() || "._-/+".contains(c);
        if !is_inside(revision) || !revision.chars().all(fits) {
            return wrong("the revision is no branch, tag or commit");
        }
        let file = file.map(str::to_owned);
        Ok(Self { owner: owner.to_owned(), name: name.to_owned(), revision: revision.to_owned(), file })
    }
}

/// The id in an address as people copy it from a browser: `https://huggingface.co/OWNER/REPO`, with `/tree/REVISION`, or with
/// `/blob/REVISION/FILE` or `/resolve/REVISION/FILE` behind it.
fn from_address(text: &str) -> Option<String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"))?;
    let (host, path) = rest.split_once('/')?;
    if !["huggingface.co", "www.huggingface.co", "hf.co"].contains(&host) {
        return None;
    }
    let path = path.split(['?', '#']).next().unwrap_or(path).trim_end_matches('/');
    let mut parts = path.splitn(5, '/');
    let (owner, name) = (parts.next()?, parts.next()?);
    Some(match (parts.next(), parts.next(), parts.next()) {
        (None, ..) => format!("{owner}/{name}"),
        (Some("tree"), Some(revision), None) => format!("{owner}/{name}@{revision}"),
        (Some("blob" | "resolve"), Some(revision), Some(file)) => format!("{owner}/{name}/{file}@{revision}"),
        _ => return None,
    })
}

/// The hub's own rule for the names of owners and repositories.
fn is_name(name: &str) -> bool {
    let edge = |c: char| c == '-' || c == '.';
    (1..=96).contains(&name.len())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        && !name.starts_with(edge)
        && !name.ends_with(edge)
        && !name.contains("--")
        && !name.contains("..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_and_shown() {
        for (text, shown, revision, file) in [
            ("a/b", "a/b", "main", None),
            ("a/b@main", "a/b", "main", None),
            ("https://huggingface.co/a/b", "a/b", "main", None),
            ("https://huggingface.co/a/b/?x=1#y", "a/b", "main", None),
            ("https://hf.co/a/b/tree/v1.0", "a/b@v1.0", "v1.0", None),
            (
                "https://huggingface.co/a/b/blob/main/c/d.safetensors",
                "a/b/c/d.safetensors",
                "main",
                Some("c/d.safetensors"),
            ),
            (
                "http://huggingface.co/a/b/resolve/main/d.safetensors?download=true",
                "a/b/d.safetensors",
                "main",
                Some("d.safetensors"),
            ),
            ("a-b/c.d_e@v1.0", "a-b/c.d_e@v1.0", "v1.0", None),
            ("a/b@refs/pr/3", "a/b@refs/pr/3", "refs/pr/3", None),
            ("a/b/c/d.safetensors@x", "a/b/c/d.safetensors@x", "x", Some("c/d.safetensors")),
        ] {
            let id: HubId = text.parse().expect(text);
            assert_eq!((id.to_string(), &*id.revision, id.file.as_deref()), (shown.to_owned(), revision, file));
        }
        assert!("a/b@0123456789012345678901234567890123456789".parse::<HubId>().expect("valid").names_a_commit());
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in [
            "a",
            "/a/b",
            "./a",
            "../a/b",
            "a/",
            "a//b",
            "a/b@",
            "a/b@..",
            "a/b@x y",
            "a--b/c",
            "-a/b",
            "a/b.",
            "a b/c",
            "C:\\a/b",
            "a/b.safetensors",
            "a/b/c",
            "a/b/../c.safetensors",
            "a/b/c.ckpt",
            "a/b//c.safetensors",
            "~/b",
        ] {
            assert!(text.parse::<HubId>().is_err(), "{text}");
        }
    }
}
