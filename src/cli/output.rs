//! Where results go: names, and files that are whole or not there.

use super::beside::Beside;
use super::error::CliError;
use super::picture_file::{self, ENDINGS, Format};
use super::png;
use pipelines::Generated;
use safetensors::{Dtype, tensor::TensorView};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Where the images of one command go.
#[derive(Debug)]
pub(super) struct Destination {
    place: Place,
    /// What stands for `{prompt}`.
    slug: String,
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
        let folder = match &place {
            Place::Stdout => None,
            Place::Default => Some(Path::new(".")),
            Place::Pattern(pattern) => Path::new(pattern).parent(),
        };
        folder.map_or(Ok(()), check_writable)?;
        Ok(Self { place, slug: slug(prompt) })
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
            return Ok(Place::Stdout);
        }
        let pattern = output.to_str().ok_or_else(|| CliError::Usage("--output is not valid text".into()))?;
        if output.file_name().is_none() || pattern.ends_with(['/', '\\']) || output.is_dir() {
            return Err(CliError::Usage(format!("--output {pattern} names a folder; name a file in it")));
        }
        if Format::of(output).is_none() && !is_sample(pattern) {
            return Err(CliError::Usage(format!("--output {pattern} must end in {ENDINGS}, or in .safetensors")));
        }
        // Found out now rather than after the last step.
        let folder = output.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !folder.is_dir() {
            return Err(CliError::Usage(format!("--output {pattern}: there is no folder {}", folder.display())));
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

    /// Writes one image, or its raw sample.
    pub(super) fn save(
        &self,
        generated: &Generated,
        index: u32,
        seed: u64,
        parameters: &str,
        settings: &serde_json::Value,
    ) -> Result<Saved, CliError> {
        let settings = settings.to_string();
        let texts = [("parameters", parameters), ("headwater", &*settings)];
        let bytes = match &generated.image {
            Some(image) if !self.takes_samples() => picture_file::encode(self.format(), image, &texts)?,
            _ => sample_file(&[("sample", &generated.sample)], generated.shape, &texts)?,
        };
        match &self.place {
            Place::Stdout => {
                let mut stdout = std::io::stdout().lock();
                stdout.write_all(&bytes)?;
                stdout.flush()?;
                Ok(Saved::Stdout)
            }
            Place::Pattern(pattern) => {
                let filled = pattern.replace("{seed}", &seed.to_string()).replace("{index}", &index.to_string());
                // Last: a prompt may itself hold braces.
                let path = PathBuf::from(filled.replace("{prompt}", &self.slug));
                write_whole(&path, &bytes)?;
                Ok(Saved::File(path))
            }
            Place::Default => Ok(Saved::File(write_new(&self.slug, seed, &bytes)?)),
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

/// A safetensors file of samples in diffusers' layout, `[1, C, H, W]`, with texts in its metadata.
pub(super) fn sample_file(
    tensors: &[(&str, &[f32])],
    shape: pipelines::SampleShape,
    texts: &[png::Text<'_>],
) -> Result<Vec<u8>, CliError> {
    let bytes = |sample: &[f32]| -> Vec<u8> {
        pipelines::nchw_from_nhwc(sample, shape).iter().flat_map(|value| value.to_le_bytes()).collect()
    };
    let data: Vec<(&str, Vec<u8>)> = tensors.iter().map(|(name, sample)| (*name, bytes(sample))).collect();
    let extents = vec![1, shape.channels, shape.height, shape.width];
    let metadata = texts.iter().map(|(keyword, text)| ((*keyword).to_owned(), (*text).to_owned())).collect();
    data.iter()
        .map(|(name, bytes)| Ok((*name, TensorView::new(Dtype::F32, extents.clone(), bytes)?)))
        .collect::<Result<Vec<_>, _>>()
        .and_then(|views| safetensors::serialize(views, Some(metadata)))
        .map_err(|error| CliError::Failed(format!("cannot encode the sample: {error}")))
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

/// Writes a file whole under the first name of the default form that no file has, also where several programs choose at once.
fn write_new(slug: &str, seed: u64, bytes: &[u8]) -> Result<PathBuf, CliError> {
    let failed = |error: std::io::Error| CliError::Failed(format!("cannot write {slug}-{seed}.png: {}", plain(&error)));
    let mut file = written(Path::new("."), bytes).map_err(failed)?;
    let first = PathBuf::from(format!("{slug}-{seed}.png"));
    let further = (2_u32..).map(|n| PathBuf::from(format!("{slug}-{seed}-{n}.png")));
    for path in std::iter::once(first).chain(further) {
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
            [("-", 2, false), ("-", 1, true), ("no/such/folder/x.png", 1, false), ("x.gif", 1, false), ("/", 1, false)]
        {
            let error = Destination::new(Some(Path::new(output)), "", count, json).expect_err(output);
            assert_eq!(error.exit_code(), 2, "{output}");
        }
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
