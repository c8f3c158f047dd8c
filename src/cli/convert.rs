//! `headwater convert`: a model in another layout or number type.

use super::beside::Beside;
use super::error::CliError;
use super::interrupt;
use super::model::{self, LoraArg, Wanted};
use clap::ValueEnum;
use graph::StorageType;
use models::{Conversion, ConvertError, first_few};
use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Write a model in another layout, number type, or with adapters merged.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A bundled model's name, a folder in diffusers' layout, a single .safetensors file, or a hub's id, OWNER/REPO[@REVISION]
    source: PathBuf,

    /// What to write: a single file if its name ends in .safetensors, and else a folder in diffusers' layout
    destination: PathBuf,

    /// Number type of every tensor [default: as it is]
    #[arg(long, value_enum)]
    dtype: Option<DType>,

    /// Adapter to merge, with how much of it [default: 1]; repeatable
    #[arg(long, value_name = "FILE[:WEIGHT]")]
    lora: Vec<LoraArg>,

    /// Autoencoder to put in place of the model's own
    #[arg(long, value_name = "DIR|FILE")]
    vae: Option<PathBuf>,

    /// Variant of the weights to read from a folder: fp16, say
    #[arg(long, value_name = "NAME")]
    variant: Option<String>,

    /// Folder whose configurations and tokenizers go before those told from a single file, and which a network alone is given
    /// its text encoders and autoencoder from
    #[arg(long, value_name = "DIR")]
    config: Option<PathBuf>,

    /// Replace what is there
    #[arg(short, long)]
    force: bool,
}

/// Number types of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DType {
    /// Single precision
    F32,
    /// Half precision
    F16,
    /// The upper half of single precision
    Bf16,
}

pub(super) fn run(args: &Args) -> Result<(), CliError> {
    let to = &args.destination;
    if fs::symlink_metadata(to).is_ok() && !args.force {
        return Err(CliError::Failed(format!("{} is there already; --force replaces it", to.display())));
    }
    check_replaced(to, &args.source)?;
    interrupt::install()?;
    let wanted = Wanted { config: args.config.as_deref(), variant: args.variant.as_deref(), ..Wanted::default() };
    let files = model::with_parts(model::open(&args.source, wanted)?, &args.lora, args.vae.as_deref())?;
    let storage = args.dtype.map(|dtype| match dtype {
        DType::F32 => StorageType::F32,
        DType::F16 => StorageType::F16,
        DType::Bf16 => StorageType::Bf16,
    });
    let conversion = Conversion::new(&files, storage)?;
    let failed = |error: &dyn std::fmt::Display| CliError::Failed(format!("cannot write {}: {error}", to.display()));
    let explain = |error: ConvertError| match error {
        ConvertError::Model(error) => error.into(),
        ConvertError::Io(_) if interrupt::pressed() => CliError::Interrupted,
        ConvertError::Io(error) => failed(&error),
    };
    let folder = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = Path::new(to.file_name().ok_or_else(|| failed(&"it has no name"))?);
    let beside = Beside::new(folder).map_err(|error| failed(&error))?;
    let written = beside.path(name);
    create_parent(&written).map_err(|error| failed(&error))?;
    let single = to.extension().is_some_and(|end| end == "safetensors");
    let left_out = conversion.left_out(single)?;
    if single {
        if to.is_dir() {
            return Err(failed(&"a folder of that name is there"));
        }
        write(&written, |out| conversion.write_single(out)).map_err(explain)?;
    } else {
        if to.is_file() {
            return Err(failed(&"it is a file, and the name of a single file ends in .safetensors"));
        }
        for (path, bytes) in conversion.small_files()? {
            create_parent(&written.join(&path)).map_err(|error| failed(&error))?;
            fs::write(written.join(path), bytes).map_err(|error| failed(&error))?;
        }
        for (part, path) in conversion.weight_files() {
            create_parent(&written.join(&path)).map_err(|error| failed(&error))?;
            write(&written.join(path), |out| conversion.write_part(&part, out)).map_err(explain)?;
        }
    }
    beside.put(name, to).map_err(|error| failed(&error))?;
    if !left_out.is_empty() {
        note!("warning: {} is without {}", to.display(), first_few(&left_out));
    }
    Ok(writeln!(std::io::stdout(), "{}", to.display())?)
}

/// Refuses to replace what is more than a model, and what is read.
fn check_replaced(to: &Path, source: &Path) -> Result<(), CliError> {
    let refuse = |why: String| Err(CliError::Failed(format!("{} is not replaced: {why}", to.display())));
    if let (Ok(to), Ok(source)) = (to.canonicalize(), source.canonicalize())
        && source.starts_with(to)
    {
        return refuse("the model that is read lies there".into());
    }
    match foreign_file(to) {
        Some(file) => refuse(format!("it holds {}, which is no part of a model", file.display())),
        None => Ok(()),
    }
}

/// A file in a folder that is no part of a model in diffusers' layout, or the folder itself where that holds no model; none of a file.
fn foreign_file(folder: &Path) -> Option<PathBuf> {
    if !folder.is_dir() {
        return None;
    }
    let list = |folder: &Path| -> Vec<PathBuf> {
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
    };
    let index = folder.join("model_index.json");
    let parts = fs::read(&index).ok().and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok());
    let entries = list(folder);
    let Some(parts) = parts else { return entries.first().cloned() };
    let is_part =
        |path: &Path| path.is_dir() && path.file_name().is_some_and(|n| parts.get(&*n.to_string_lossy()).is_some());
    let is_file_of_model = |path: &Path| {
        let end = path.extension().unwrap_or_default().to_string_lossy();
        path.is_file() && ["json", "safetensors", "txt", "model"].contains(&&*end)
    };
    let (parts, rest): (Vec<_>, Vec<_>) = entries.into_iter().partition(|path| is_part(path));
    let inside = parts.iter().flat_map(|part| list(part)).find(|path| !is_file_of_model(path));
    inside.or_else(|| rest.into_iter().find(|path| *path != index))
}

fn create_parent(path: &Path) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

fn write(path: &Path, fill: impl FnOnce(&mut dyn Write) -> Result<(), ConvertError>) -> Result<(), ConvertError> {
    let mut out = BufWriter::new(UntilInterrupted(fs::File::create(path)?));
    fill(&mut out)?;
    out.flush()?;
    // On disk before it is given its name.
    Ok(out.get_ref().0.sync_all()?)
}

/// Writes until somebody asks to stop.
struct UntilInterrupted<W>(W);

impl<W: Write> Write for UntilInterrupted<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if interrupt::pressed() {
            return Err(std::io::Error::other("stopped"));
        }
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}
