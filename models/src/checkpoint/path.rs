//! Paths inside a model, with `/` between their parts on every system.

/// Joins a folder and a name. Either may be empty.
pub(crate) fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() || name.is_empty() { format!("{folder}{name}") } else { format!("{folder}/{name}") }
}

/// Whether a path from a file or from the network stays inside the folder it is joined to, on every system. Its parts
/// are separated by `/`.
#[must_use]
pub fn is_inside(path: &str) -> bool {
    path.split('/')
        .all(|part| !["", ".", ".."].contains(&part) && !part.contains(['\\', ':']) && !part.contains(char::is_control))
}
