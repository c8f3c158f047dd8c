//! Where results go: names, and files that are whole or not there.

use super::beside::Beside;
use super::error::CliError;
use super::picture_file;
use super::png;
use crate::PictureFormat as Format;
use pipelines::Generated;
use std::io::{IsTerminal as _, Write};
use std::path::{Path, PathBuf};

/// Where the images of one command go.
#[derive(Debug)]
pub(super) struct Destination {
    place: Place,
    /// What stands for `{prompt}`.
    slug: String,
    /// Whether files that are there may be replaced.
    force: bool,
}

#[derive(Debug)]
enum Place {
    /// Standard output, one image.
    Stdout,
    /// A path with placeholders.
    Pattern(String),
    /// `./{prompt}-{seed}.png`, never over an existing file.
    Default,
}

/// As many of the files to come are looked for before anything is computed.
const MOST_LOOKED_FOR: usize = 10_000;

/// What a path may hold, to be filled in for each image.
const PLACEHOLDERS: [&str; 3] = ["{prompt}", "{seed}", "{index}"];

/// Where one image went.
#[derive(Debug)]
pub(super) enum Saved {
    /// Standard output.
    Stdout,
    /// A file.
    File(PathBuf),
}

impl Saved {
    pub(super) fn path(&self) -> Option<&Path> {
        match self {
            Saved::Stdout => None,
            Saved::File(path) => Some(path),
        }
    }
}

impl Destination {
    pub(super) fn new(output: Option<&Path>, prompt: &str, count: u32, json: bool) -> Result<Self, CliError> {
        let place = Self::place(output, count, json)?;
        let this = Self { place, slug: slug(prompt), force: false };
        match &this.place {
            Place::Stdout => {}
            Place::Default => check_writable(Path::new("."))?,
            Place::Pattern(pattern) => {
                check_can_make(Path::new(&this.filled(pattern, 0, 0)).parent().unwrap_or(Path::new(".")))?;
            }
        }
        Ok(this)
    }

    /// The same for images of these seeds, which may replace files only by `force`: found out now rather than after the last step.
    pub(super) fn of_seeds(self, seeds: impl Iterator<Item = u64>, force: bool) -> Result<Self, CliError> {
        if let Place::Pattern(pattern) = &self.place
            && !force
        {
            let mut paths =
                (0..).zip(seeds).take(MOST_LOOKED_FOR).map(|(index, seed)| self.filled(pattern, index, seed));
            if let Some(path) = paths.find(|path| Path::new(path).exists()) {
                let message = format!("--output {path} exists already: give another name, or --force to overwrite it");
                return Err(CliError::Usage(message));
            }
        }
        Ok(Self { force, ..self })
    }

    /// The path of one image.
    fn filled(&self, pattern: &str, index: u32, seed: u64) -> String {
        let filled = pattern.replace("{seed}", &seed.to_string()).replace("{index}", &index.to_string());
        // Last: a prompt may itself hold braces.
        filled.replace("{prompt}", &self.slug)
    }

    fn place(output: Option<&Path>, count: u32, json: bool) -> Result<Place, CliError> {
        let Some(output) = output else { return Ok(Place::Default) };
        if output == Path::new("-") {
            if count > 1 {
                return Err(CliError::Usage("--output - takes one image; leave out --count".into()));
            }
            if json {
                return Err(CliError::Usage("--output - and --json both want standard output".into()));
            }
            if std::io::stdout().is_terminal() {
                let message =
                    "--output - would write a picture's bytes to the terminal: send them on (| or >), or name a file";
                return Err(CliError::Usage(message.into()));
            }
            return Ok(Place::Stdout);
        }
        let pattern = output.to_str().ok_or_else(|| CliError::Usage("--output is not valid text".into()))?;
        if output.file_name().is_none() || pattern.ends_with(['/', '\\']) || output.is_dir() {
            return Err(CliError::Usage(format!("--output {pattern} names a folder; name a file in it")));
        }
        if Format::of(output).is_none() && !is_sample(pattern) {
            let endings = Format::ENDINGS;
            return Err(CliError::Usage(format!("--output {pattern} must end in {endings}, or in .safetensors")));
        }
        if let Some(unknown) = unknown_placeholder(pattern) {
            let known = PLACEHOLDERS.join(", ");
            return Err(CliError::Usage(format!("--output {pattern}: {unknown} is not filled in (there are {known})")));
        }
        let distinct = count == 1 || pattern.contains("{seed}") || pattern.contains("{index}");
        let pattern = if distinct {
            pattern.to_owned()
        } else {
            // Several images under one name would overwrite each other.
            let dot = pattern.rfind('.').unwrap_or(pattern.len());
            format!("{}-{{index}}{}", &pattern[..dot], &pattern[dot..])
        };
        Ok(Place::Pattern(pattern))
    }

    /// Whether raw samples are wanted, not pictures.
    pub(super) fn takes_samples(&self) -> bool {
        matches!(&self.place, Place::Pattern(pattern) if is_sample(pattern))
    }

    /// Whether pictures are written in a format that changes them.
    pub(super) fn loses_pixels(&self) -> bool {
        !self.takes_samples() && self.format() == Format::Jpeg
    }

    /// Of pictures.
    fn format(&self) -> Format {
        let named = if let Place::Pattern(pattern) = &self.place { Format::of(Path::new(pattern)) } else { None };
        named.unwrap_or(Format::Png)
    }

    /// Writes one image, or its raw sample, which ends at a noise level.
    pub(super) fn save(
        &self,
        generated: &Generated,
        index: u32,
        seed: u64,
        parameters: &str,
        settings: &serde_json::Value,
        sigma: f64,
    ) -> Result<Saved, CliError> {
        let settings = settings.to_string();
        let texts = [("parameters", parameters), ("headwater", &*settings)];
        let bytes = match &generated.image {
            Some(image) if !self.takes_samples() => picture_file::encode(self.format(), image, &texts)?,
            _ => {
                let [steps, evaluations] = [generated.steps, generated.evaluations].map(|count| count.to_string());
                let sigma = sigma.to_string();
                let texts =
                    [&texts[..], &[("sigma", &sigma), ("step", &steps), ("evaluations", &evaluations)]].concat();
                sample_file(&[("sample", &generated.sample)], generated.shape, &texts)?
            }
        };
        match &self.place {
            Place::Stdout => {
                let mut stdout = std::io::stdout().lock();
                stdout.write_all(&bytes)?;
                stdout.flush()?;
                Ok(Saved::Stdout)
            }
            Place::Pattern(pattern) => {
                let path = PathBuf::from(self.filled(pattern, index, seed));
                make_parent(&path)?;
                if self.force {
                    write_whole(&path, &bytes)?;
                    return Ok(Saved::File(path));
                }
                // Nothing was there at first. An image is not lost to what came meanwhile.
                Ok(Saved::File(write_new(&path, &bytes)?))
            }
            Place::Default => Ok(Saved::File(write_new(Path::new(&format!("{}-{seed}.png", self.slug)), &bytes)?)),
        }
    }
}

/// Whether a path names a file of raw samples.
fn is_sample(pattern: &str) -> bool {
    pattern.to_lowercase().ends_with(".safetensors")
}

/// The first `{word}` in a path that stands for nothing.
fn unknown_placeholder(pattern: &str) -> Option<&str> {
    let mut rest = pattern;
    while let Some(open) = rest.find('{') {
        let close = open + rest[open..].find('}')? + 1;
        let word = &rest[open..close];
        let name = &word[1..word.len() - 1];
        let is_name = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
        if is_name && !PLACEHOLDERS.contains(&word) {
            return Some(word);
        }
        rest = &rest[close..];
    }
    None
}

/// A safetensors file of samples, with texts in its metadata.
pub(super) fn sample_file(
    tensors: &[(&str, &[f32])],
    shape: pipelines::SampleShape,
    texts: &[png::Text<'_>],
) -> Result<Vec<u8>, CliError> {
    crate::compare::report::tensor_file(tensors, shape, texts).map_err(CliError::Failed)
}

/// A file beside those to come, which removes itself unless it is given its name.
fn temporary(folder: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".headwater-");
    // Temporary files are private to their owner; results are as any new file, which the system's umask decides.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder)
}

/// Refuses a folder that nothing can be written into: found out now rather than after the last step.
pub(super) fn check_writable(folder: &Path) -> Result<(), CliError> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    // The file is gone again at once.
    temporary(folder).map(drop).map_err(|error| {
        CliError::Failed(format!("cannot write into the folder {}: {}", folder.display(), plain(&error)))
    })
}

/// The same for a folder that is made when it is needed: what there is of it must be a folder that can be written into.
pub(super) fn check_can_make(folder: &Path) -> Result<(), CliError> {
    let there = folder.ancestors().find(|part| part.as_os_str().is_empty() || part.exists()).unwrap_or(Path::new("."));
    if !there.as_os_str().is_empty() && !there.is_dir() {
        let message = format!("cannot make the folder {}: {} is a file", folder.display(), there.display());
        return Err(CliError::Usage(message));
    }
    check_writable(there)
}

/// Makes the folder that a file is written into.
pub(super) fn make_parent(path: &Path) -> Result<(), CliError> {
    let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) else { return Ok(()) };
    std::fs::create_dir_all(folder)
        .map_err(|error| CliError::Failed(format!("cannot make the folder {}: {error}", folder.display())))
}

/// What went wrong, without the temporary file's path, which says nothing to whoever reads it.
fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" at path ").next().unwrap_or(&text).to_owned()
}

/// The same with these contents.
fn written(folder: &Path, bytes: &[u8]) -> std::io::Result<tempfile::NamedTempFile> {
    let mut file = temporary(folder)?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all())?;
    Ok(file)
}

/// Writes a file whole or not at all: beside its place first, then renamed.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    let failed =
        |error: std::io::Error| CliError::Failed(format!("cannot write {}: {}", path.display(), plain(&error)));
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = written(folder, bytes).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

/// Writes a new folder of files whole or not at all.
pub(super) fn write_folder(path: &Path, files: &[(String, Vec<u8>)]) -> Result<(), CliError> {
    let failed =
        |error: std::io::Error| CliError::Failed(format!("cannot write {}: {}", path.display(), plain(&error)));
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let beside = Beside::new(parent).map_err(failed)?;
    let name = Path::new(path.file_name().unwrap_or_default());
    let made = beside.path(name);
    std::fs::create_dir_all(&made).map_err(failed)?;
    for (file, bytes) in files {
        std::fs::write(made.join(file), bytes).map_err(failed)?;
    }
    beside.put(name, path).map_err(failed)
}

/// Writes a file whole under this name, or under the first numbered one that no file has, also where several programs choose at once.
fn write_new(wanted: &Path, bytes: &[u8]) -> Result<PathBuf, CliError> {
    let failed =
        |error: std::io::Error| CliError::Failed(format!("cannot write {}: {}", wanted.display(), plain(&error)));
    let folder = wanted.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let part = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    let (stem, ending) = (part(wanted.file_stem()), part(wanted.extension()));
    let mut file = written(folder, bytes).map_err(failed)?;
    let further = (2_u32..).map(|n| wanted.with_file_name(format!("{stem}-{n}.{ending}")));
    for path in std::iter::once(wanted.to_owned()).chain(further) {
        match file.persist_noclobber(&path) {
            Ok(_) => return Ok(path),
            Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => file = error.file,
            Err(error) => return Err(failed(error.error)),
        }
    }
    unreachable!("there are more numbers than files")
}

/// The prompt as a file name: letters and digits of any script, the rest dashes, at most 48 characters.
pub(super) fn slug(prompt: &str) -> String {
    let mut slug = String::new();
    for c in prompt.chars().flat_map(char::to_lowercase) {
        if c.is_alphanumeric() {
            slug.push(c);
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
        if slug.chars().count() >= 48 {
            break;
        }
    }
    let slug = slug.trim_end_matches('-');
    if slug.is_empty() { "image".to_owned() } else { slug.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_become_file_names() {
        let long = "word ".repeat(100);
        for (prompt, want) in [
            ("a red heart", "a-red-heart"),
            ("  A/B: \"c\"!  ", "a-b-c"),
            ("红心", "红心"),
            ("../../etc/passwd", "etc-passwd"),
            ("???", "image"),
            (&long, "word-word-word-word-word-word-word-word-word-wor"),
        ] {
            assert_eq!(slug(prompt), want);
        }
    }

    #[test]
    fn several_images_get_distinct_names() {
        let several = Destination::new(Some(Path::new("out.PNG")), "", 3, false).expect("valid");
        assert!(matches!(several.place, Place::Pattern(pattern) if pattern == "out-{index}.PNG"));
    }

    #[test]
    fn impossible_outputs_are_refused_at_once() {
        for (output, count, json) in
            [("-", 2, false), ("-", 1, true), ("Cargo.toml/x.png", 1, false), ("x.gif", 1, false), ("/", 1, false)]
        {
            let error = Destination::new(Some(Path::new(output)), "", count, json).expect_err(output);
            assert_eq!(error.exit_code(), 2, "{output}");
        }
    }

    #[test]
    fn files_are_replaced_only_by_force() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let pattern = folder.path().join("deep/er/{prompt}-{seed}.png");
        let destination = |force| {
            let new = Destination::new(Some(&pattern), "A b", 2, false).expect("folders are made later");
            new.of_seeds(3..5, force)
        };
        assert!(destination(false).is_ok() && !folder.path().join("deep").exists());
        make_parent(&pattern).expect("makes folders");
        std::fs::write(folder.path().join("deep/er/a-b-4.png"), "mine").expect("writes");
        let error = destination(false).expect_err("the second is there");
        assert!(error.exit_code() == 2 && error.to_string().contains("a-b-4.png exists already"), "{error}");
        assert!(destination(true).is_ok());
        // What came while the image was made stays.
        let path = folder.path().join("deep/er/a-b-4.png");
        assert_eq!(write_new(&path, b"new").expect("writes"), folder.path().join("deep/er/a-b-4-2.png"));
        assert_eq!(std::fs::read(path).expect("reads"), b"mine");
    }

    #[test]
    fn placeholders_are_known() {
        for (pattern, unknown) in [
            ("a.png", None),
            ("{prompt}-{seed}-{index}.png", None),
            ("{}{a b}{.png", None),
            ("{sede}.png", Some("{sede}")),
            ("{seed}{model}.png", Some("{model}")),
        ] {
            assert_eq!(unknown_placeholder(pattern), unknown, "{pattern}");
        }
    }

    #[test]
    fn a_failed_write_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let taken = folder.path().join("taken.png");
        std::fs::create_dir(&taken).expect("creates");
        assert_eq!(write_whole(&taken, b"x").expect_err("a folder is in the way").exit_code(), 1);
        assert_eq!(std::fs::read_dir(folder.path()).expect("reads").count(), 1, "no temporary file is left");
    }
}
