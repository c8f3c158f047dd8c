use thiserror::Error;

/// Why a model cannot be used: one sentence that begins with the file it is about.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{path}: {message}")]
pub struct ModelError {
    /// The file or folder, as a user would look for it.
    pub path: String,
    /// What is wrong with it.
    pub message: String,
    /// What would mend it, where something that can be given apart would: a program names its own way to give it.
    pub wanted: Option<GivenApart>,
}

/// Something that a model's files may lack and that can be given beside them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GivenApart {
    /// A folder in diffusers' layout beside a single file.
    Folder,
    /// An autoencoder.
    Autoencoder,
}

impl ModelError {
    pub(crate) fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into(), wanted: None }
    }

    pub(crate) fn wants(self, wanted: GivenApart) -> Self {
        Self { wanted: Some(wanted), ..self }
    }
}

/// The first few names of a list, and the number of those left out.
#[must_use]
pub fn first_few(names: &[impl AsRef<str>]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<&str> = names.iter().take(SHOWN).map(AsRef::as_ref).collect();
    match names.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
