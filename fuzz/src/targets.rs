//! What reads files, and files to begin with.

use headwater::cli::readers;
use headwater::{DeviceChoice, DeviceSettings, Pipeline, PromptSyntax, Request, open_device};
use models::{Checkpoint, Lora, ModelFiles, TextualInversion};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// A whole file.
pub(crate) struct Seed {
    /// Relative to its folder.
    pub(crate) name: String,
    /// The folder that it is a part of.
    folder: PathBuf,
    pub(crate) bytes: Vec<u8>,
}

/// A reader.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    /// Files that it reads, in the project's goldens.
    pub(crate) corpus: fn(&Path) -> Vec<Seed>,
    /// Reads these bytes in the seed's place; the folder is the target's own.
    pub(crate) read: fn(&Path, &Seed, &[u8]),
}

pub(crate) const TARGETS: &[Target] = &[
    Target {
        name: "models",
        corpus: |goldens| in_folders(goldens, "pipelines", &["json", "safetensors", "txt", "model"]),
        read: model,
    },
    Target { name: "tensors", corpus: |goldens| in_folders(goldens, "pipelines", &["safetensors"]), read: tensors },
    Target { name: "adapters", corpus: adapters, read: tensors },
    Target { name: "pictures", corpus: pictures, read: picture },
    Target { name: "texts", corpus: texts, read: texts_of },
    Target { name: "parameters", corpus: parameters, read: text },
    Target { name: "prompts", corpus: prompts, read: prompt },
    Target { name: "arguments", corpus: arguments, read: arguments_of },
];

/// Files of some endings in each folder of a golden folder, those below 256 KiB: changes to larger ones mostly hit weights.
fn in_folders(goldens: &Path, folder: &str, endings: &[&str]) -> Vec<Seed> {
    let mut seeds = Vec::new();
    for folder in entries(&goldens.join(folder)).into_iter().filter(|path| path.is_dir()) {
        collect(&folder, &folder, endings, &mut seeds);
    }
    seeds
}

fn adapters(goldens: &Path) -> Vec<Seed> {
    let mut seeds = Vec::new();
    for folder in ["loras", "embeddings"].map(|name| goldens.join(name)) {
        collect(&folder, &folder, &["safetensors"], &mut seeds);
    }
    seeds
}

fn pictures(goldens: &Path) -> Vec<Seed> {
    let (mut seeds, folder) = (Vec::new(), goldens.join("edits"));
    collect(&folder, &folder, &["png", "jpg", "webp"], &mut seeds);
    seeds
}

/// What pictures say of how they were made: keyword and text.
const TEXTS: &[(&str, &str)] = &[
    (
        "parameters",
        "a (red:1.2) cat, <lora:style:0.8>\nNegative prompt: dog, \"bird\"\nSteps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7.5, Seed: 42, \
         Size: 512x768, Model hash: abc, Clip skip: 2, RNG: CPU, Lora hashes: \"style: 1a, other: 2b\", Version: v1.10.1",
    ),
    (
        "parameters",
        "Steps: 1, Sampler: Euler a, Schedule type: Automatic, Eta: 0.5, Class: 3, Denoising strength: 0.3, Hires upscale: 2",
    ),
    (
        "headwater",
        r#"{"command":"generate","prompt":"红心 ❤","model":"icons-64","width":64,"height":64,"sampler":"heun","steps":4,"guidance":2.5,"seed":7,"loras":[{"file":"a.safetensors","weight":0.5}],"embeddings":[{"file":"b","token":"<b>"}]}"#,
    ),
    (
        "headwater",
        r#"{"command":"generate","prompt":"","sigmas":[80,1.5,0.002],"timesteps":[999,1],"rng":"torch-cpu","clip_skip":1}"#,
    ),
];

fn texts(_: &Path) -> Vec<Seed> {
    let by = |texts: &[(&str, &str)], compressed: bool| {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, 1, 1);
        for (keyword, text) in texts {
            let (keyword, text) = ((*keyword).to_owned(), (*text).to_owned());
            let added = match (compressed, text.is_ascii()) {
                (true, true) => encoder.add_ztxt_chunk(keyword, text),
                (false, true) => encoder.add_text_chunk(keyword, text),
                (_, false) => encoder.add_itxt_chunk(keyword, text),
            };
            drop(added);
        }
        encoder.write_header().and_then(|mut writer| writer.write_image_data(&[0])).map(|()| bytes).unwrap_or_default()
    };
    let files = TEXTS.iter().flat_map(|text| [by(&[*text], false), by(&[*text], true)]);
    files.enumerate().map(|(i, bytes)| seed(&format!("{i}.png"), bytes)).collect()
}

fn parameters(_: &Path) -> Vec<Seed> {
    TEXTS.iter().map(|(keyword, text)| seed(keyword, text.as_bytes().to_vec())).collect()
}

fn prompts(_: &Path) -> Vec<Seed> {
    let prompts = [
        "a red heart",
        "a (red:1.3) [blue] ((fox)) BREAK on \\(a\\) mat, <lora:style:0.5> and more, more, more",
        "(a:1e9) [a:b:0.5] [a|b] AND {x} <lora:a:b:c> ((((((((((a))))))))))",
        "红心 ❤ é \u{202e} \0 \u{10ffff} word,word,word,word,word,word,word,word,word,word,word,word,word,word,word,word,word,word,word",
    ];
    prompts.iter().map(|prompt| seed("prompt", prompt.as_bytes().to_vec())).collect()
}

fn arguments(_: &Path) -> Vec<Seed> {
    let lines = [
        "a red heart --steps 4 --seed random -W 64 -H 64 --guidance 2.5",
        "x --sampler dpmpp_2m --schedule karras --sigmas 80,1,0.1 --eta 0.5 --s-churn 1 --s-noise 1.003",
        "x --timesteps 999,500,1 -n 3 --batch 2 --rng philox --class-label 3 --clip-skip 1 -o {prompt}-{seed}.png",
        "x --lora a.safetensors:0.5 --embedding b.safetensors:<b> --vae c --dtype f16 --device gpu:1 --prompt-syntax plain",
    ];
    lines.iter().map(|line| seed("arguments", line.as_bytes().to_vec())).collect()
}

fn seed(name: &str, bytes: Vec<u8>) -> Seed {
    Seed { name: name.to_owned(), folder: PathBuf::new(), bytes }
}

fn collect(root: &Path, folder: &Path, endings: &[&str], seeds: &mut Vec<Seed>) {
    for path in entries(folder) {
        let end = path.extension().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            collect(root, &path, endings, seeds);
        } else if endings.contains(&&*end) && path.metadata().is_ok_and(|file| file.len() < 256 << 10) {
            let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            if let Ok(bytes) = std::fs::read(&path) {
                seeds.push(Seed { name, folder: root.to_owned(), bytes });
            }
        }
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    found.sort();
    found
}

/// The whole model around a changed file: every configuration, tokenizer and header of weights.
fn model(place: &Path, seed: &Seed, bytes: &[u8]) {
    let copy = place.join(seed.folder.file_name().unwrap_or_default());
    if !copy.is_dir() {
        copy_model(&seed.folder, &copy);
    }
    /// Puts the file back, also after a panic: what comes next is to be damaged alone.
    struct Whole<'a>(PathBuf, &'a [u8]);
    impl Drop for Whole<'_> {
        fn drop(&mut self) {
            drop(std::fs::write(&self.0, self.1));
        }
    }
    let file = Whole(copy.join(&seed.name), &seed.bytes);
    if std::fs::write(&file.0, bytes).is_ok()
        && let Ok(files) = ModelFiles::folder(&copy)
    {
        drop(pipelines::problems(&files));
    }
}

/// A model without its pictures.
fn copy_model(from: &Path, to: &Path) {
    drop(std::fs::create_dir_all(to));
    for path in entries(from) {
        let name = path.file_name().unwrap_or_default();
        if path.is_dir() && name != "pictures" && name != "edits" {
            copy_model(&path, &to.join(name));
        } else if path.is_file() {
            drop(std::fs::copy(&path, to.join(name)));
        }
    }
}

/// A file of tensors as whatever it may be.
fn tensors(place: &Path, _: &Seed, bytes: &[u8]) {
    let file = place.join("file.safetensors");
    if std::fs::write(&file, bytes).is_err() {
        return;
    }
    drop(Checkpoint::at(&file));
    drop(Lora::open(&file, 1.0));
    drop(TextualInversion::open(&file, None));
    if let Ok(files) = ModelFiles::single(&file, None) {
        drop(pipelines::problems(&files));
    }
}

fn picture(place: &Path, _: &Seed, bytes: &[u8]) {
    let file = place.join("picture");
    if std::fs::write(&file, bytes).is_ok() {
        drop(headwater::read_picture(&file));
        drop(headwater::read_mask(&file));
    }
}

fn texts_of(place: &Path, _: &Seed, bytes: &[u8]) {
    let file = place.join("picture.png");
    if std::fs::write(&file, bytes).is_ok() {
        readers::texts_of(&file);
    }
}

fn text(_: &Path, seed: &Seed, bytes: &[u8]) {
    readers::text(&seed.name, &String::from_utf8_lossy(bytes));
}

fn arguments_of(_: &Path, _: &Seed, bytes: &[u8]) {
    let line = String::from_utf8_lossy(bytes);
    readers::arguments(&line.split(' ').map(str::to_owned).collect::<Vec<_>>());
}

/// A prompt as both syntaxes have it, up to the first step of a tiny model.
fn prompt(_: &Path, _: &Seed, bytes: &[u8]) {
    static PIPELINE: OnceLock<Pipeline> = OnceLock::new();
    let pipeline = PIPELINE.get_or_init(|| {
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens/pipelines/stable_diffusion");
        let files = ModelFiles::folder(&model).expect("the goldens have this model");
        let device = open_device(&DeviceChoice::Cpu, &DeviceSettings::default()).expect("every machine has a CPU");
        Pipeline::from_pretrained(&device, &files, Default::default()).expect("this model is one")
    });
    let text = String::from_utf8_lossy(bytes);
    readers::prompt(&text);
    for prompt_syntax in [PromptSyntax::A1111, PromptSyntax::Plain] {
        let request = Request { prompt: text.to_string(), prompt_syntax: Some(prompt_syntax), ..Request::default() };
        if let Ok(job) = pipeline.job(&request) {
            drop(pipeline.start(&job));
        }
    }
}
