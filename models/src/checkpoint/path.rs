//! Paths inside a model, with `/` between their parts on every system.

/// The path of a name in a folder, either of which may be none.
pub(crate) fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() || name.is_empty() { format!("{folder}{name}") } else { format!("{folder}/{name}") }
}

/// Whether a path from elsewhere, `/` between its parts, stays inside the folder it is joined to, on every system.
#[must_use]
pub fn is_inside(path: &str) -> bool {
    path.split('/')
        .all(|part| !["", ".", ".."].contains(&part) && !part.contains(['\\', ':']) && !part.contains(char::is_control))
}
