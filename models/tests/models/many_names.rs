//! Files with very many names, or very long ones, that nobody means well with: whatever is made of them must end. Nothing here is timed.
//! Each case has 100 thousand entries, or names with millions of dots together, or 5 thousand levels and as many layers, each pair of which
//! would be thirty names to make: work for each pair would take minutes to hours, and work for each one takes a second.

use graph::WeightSpec;
use models::{Checkpoint, Conversion, Lora, ModelFiles, ModelIndex, TextualInversion};
use serde_json::{Map, Value, json};
use std::collections::HashSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

const MANY: usize = 100_000;

/// Names of each kind that is also put into a whole model.
const NAMES: usize = 10_000;

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens")
}

/// A file of tensors with one number each, all zero; what `own` holds comes first, with its data.
struct File {
    header: String,
    end: usize,
    data: Vec<u8>,
    names: HashSet<String>,
}

/// The tiny Stable Diffusion of the goldens in one file.
static WHOLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let files = ModelFiles::folder(goldens().join("pipelines/stable_diffusion")).expect("the goldens");
    let mut bytes = Vec::new();
    let conversion = Conversion::new(&files, None);
    conversion.and_then(|c| c.write_single(&mut bytes).map_err(|_| unreachable!())).expect("written");
    bytes
});

impl File {
    fn new() -> Self {
        Self { header: "{".into(), end: 0, data: Vec::new(), names: HashSet::new() }
    }

    /// Begins with a whole model in one file: the tiny Stable Diffusion of the goldens.
    fn stable_diffusion(without: &str) -> Self {
        let bytes = &*WHOLE;
        let length = usize::try_from(u64::from_le_bytes(*bytes.first_chunk().expect("a length"))).expect("small");
        let header: Map<String, Value> = serde_json::from_slice(&bytes[8..8 + length]).expect("a header");
        let mut file = Self { data: bytes[8 + length..].to_vec(), ..Self::new() };
        file.end = file.data.len();
        for (name, value) in header {
            let name = if !without.is_empty() && name.starts_with(without) { format!("unused.{name}") } else { name };
            write!(file.header, "{}:{value},", json!(name)).expect("to memory");
            file.names.insert(name);
        }
        file
    }

    /// Adds a tensor, unless there is one of this name.
    fn tensor(&mut self, name: &str) {
        if !self.names.insert(name.to_owned()) {
            return;
        }
        let (start, end) = (self.end, self.end + 2);
        write!(self.header, r#""{name}":{{"dtype":"F16","shape":[1,1],"data_offsets":[{start},{end}]}},"#)
            .expect("to memory");
        self.end = end;
    }

    fn write(mut self, path: &Path) {
        self.header.pop();
        self.header.push('}');
        self.data.resize(self.end, 0);
        let bytes = [&(self.header.len() as u64).to_le_bytes()[..], self.header.as_bytes(), &self.data].concat();
        std::fs::write(path, bytes).expect("writes");
    }
}

/// Very many names, of every kind that is looked for in files.
fn kinds() -> Vec<(&'static str, Vec<String>)> {
    let half = NAMES / 2;
    let many = |count: usize, name: &dyn Fn(usize) -> String| (0..count).map(name).collect::<Vec<_>>();
    vec![
        // Looked up from the longest beginning on, a name would be read once for each of its dots.
        ("deep", many(50, &|i| format!("model.diffusion_model.{i}{}.weight", ".a".repeat(50_000)))),
        ("deep parts", many(50, &|i| format!("decoder.up_blocks.0{}.x{i}", ".0".repeat(50_000)))),
        // Of these there are as many levels as layers, and there would be a name for each of both together.
        (
            "levels and layers",
            [
                many(half, &|i| format!("model.diffusion_model.input_blocks.{}.0.in_layers.0.weight", i + 1)),
                many(half, &|i| format!("model.diffusion_model.input_blocks.{}.0.op.weight", (i + 1) * (half + 1))),
            ]
            .concat(),
        ),
        (
            "levels and layers of an autoencoder",
            [
                many(half, &|i| format!("first_stage_model.decoder.up.{i}.block.0.conv1.weight")),
                many(half, &|i| format!("first_stage_model.decoder.up.0.block.{i}.conv1.weight")),
            ]
            .concat(),
        ),
        (
            "levels and layers in diffusers' names",
            [
                many(half, &|i| format!("up_blocks.{i}.resnets.0.conv1.weight")),
                many(half, &|i| format!("down_blocks.0.resnets.{i}.conv1.weight")),
                many(half, &|i| format!("decoder.up_blocks.{i}.resnets.0.conv1.weight")),
                many(half, &|i| format!("decoder.up_blocks.0.resnets.{}.conv1.weight", i + 1)),
            ]
            .concat(),
        ),
        ("large numbers", many(MANY, &|i| format!("down_blocks.{}.resnets.{i}.conv1.weight", 999_999 - i))),
        (
            "layers",
            many(NAMES, &|i| format!("cond_stage_model.transformer.text_model.encoder.layers.{i}.layer_norm1.weight")),
        ),
        (
            "transformers",
            many(NAMES, &|i| format!("model.diffusion_model.middle_block.1.transformer_blocks.{i}.norm1.weight")),
        ),
        (
            "adapters",
            many(MANY, &|i| {
                let end = ["lora_down.weight", "lora_up.weight", "alpha"][i % 3];
                format!("lora_unet_down_blocks_{}.{end}", i / 3)
            }),
        ),
        ("words", many(MANY, &|i| format!("bundle_emb.word{i}.clip_l"))),
        ("scales", many(MANY, &|i| format!("a{}.{}", i / 2, ["weight", "scale_weight"][i % 2]))),
        ("anything", many(MANY, &|i| format!("x{i}"))),
    ]
}

/// Whatever opens files opens each of these, or refuses it.
#[test]
fn every_reader_comes_to_an_end() {
    let place = tempfile::tempdir().expect("a folder");
    for (what, names) in kinds() {
        let path = place.path().join("x.safetensors");
        let mut alone = File::new();
        names.iter().for_each(|name| alone.tensor(name));
        alone.write(&path);
        drop(Lora::open(&path, 1.0));
        drop(TextualInversion::open(&path, None));
        drop(ModelFiles::single(&path, None));
        let files = ModelFiles::folder(goldens().join("pipelines/stable_diffusion")).expect("the goldens");
        drop(files.with_vae(&path));
        let checkpoint = Checkpoint::at(&path).expect("a good file");
        let specs: Vec<WeightSpec> =
            names.iter().map(|name| WeightSpec { name: format!("{name}.x"), shape: vec![1, 1] }).collect();
        assert_eq!(checkpoint.report(&specs).missing.len(), names.len(), "{what}");
        if names.len() == MANY {
            continue;
        }
        // The same names beside a whole model in one file, and in the place of its network.
        for without in ["", "model.diffusion_model."] {
            let mut file = File::stable_diffusion(without);
            names.iter().for_each(|name| file.tensor(name));
            file.write(&path);
            if let Ok(files) = ModelFiles::single(&path, None) {
                for part in ["unet", "vae", "text_encoder"] {
                    drop(Checkpoint::open(&files, part, None).map(|checkpoint| checkpoint.report(&specs).extra.len()));
                }
            }
        }
    }
}

/// A model with very many tensors, and an adapter for every one of them, with a pattern for each.
#[test]
fn adapters_of_many_layers_are_added() {
    let place = tempfile::tempdir().expect("a folder");
    let unet = place.path().join("unet");
    std::fs::create_dir(&unet).expect("a folder");
    std::fs::write(unet.join("config.json"), "{}").expect("writes");
    let count = MANY / 2;
    let (mut network, mut lora) = (File::new(), File::new());
    let mut patterns = Map::new();
    for i in 0..count {
        let module = format!("down_blocks.{i}.resnets.{}.conv1", count - i);
        network.tensor(&format!("{module}.weight"));
        lora.tensor(&format!("unet.{module}.lora_A.weight"));
        lora.tensor(&format!("unet.{module}.lora_B.weight"));
        patterns.insert(module, json!(i));
    }
    let settings = json!({ "unet.lora_alpha": 1, "unet.alpha_pattern": patterns }).to_string();
    write!(lora.header, r#""__metadata__":{{"lora_adapter_metadata":{}}},"#, json!(settings)).expect("to memory");
    network.write(&unet.join("diffusion_pytorch_model.safetensors"));
    let path = place.path().join("lora.safetensors");
    lora.write(&path);
    let files = ModelFiles::folder(place.path()).expect("a folder");
    let lora = Lora::open(&path, 1.0).expect("an adapter");
    assert_eq!(lora.layers(), count);
    assert!(files.with_loras(&[lora]).is_ok());
}

/// One weight has as many names as there are ways to put dots or underscores between the words of its own. Whether all that is added is too
/// much is found in one walk.
#[test]
fn one_weight_changed_very_often() {
    const PLACES: usize = 15;
    let place = tempfile::tempdir().expect("a folder");
    let unet = place.path().join("unet");
    std::fs::create_dir(&unet).expect("a folder");
    std::fs::write(unet.join("config.json"), "{}").expect("writes");
    let mut network = File::new();
    network.tensor(&format!("{}a.weight", "a.".repeat(PLACES)));
    network.write(&unet.join("diffusion_pytorch_model.safetensors"));
    let mut lora = File::new();
    for bits in 0..1 << PLACES {
        let dots = (0..PLACES).map(|i| if bits >> i & 1 == 1 { "a." } else { "a_" }).collect::<String>();
        lora.tensor(&format!("unet.{dots}a.lora_A.weight"));
        lora.tensor(&format!("unet.{dots}a.lora_B.weight"));
    }
    // Sixteen times sixteen, more than 65504 only after two hundred and fifty-six of them.
    lora.data = [0x00, 0x4C].repeat(lora.end / 2);
    let path = place.path().join("lora.safetensors");
    lora.write(&path);
    let files = ModelFiles::folder(place.path()).expect("a folder");
    let error = files.with_loras(&[Lora::open(&path, 1.0).expect("an adapter")]).expect_err("too much").to_string();
    assert!(error.contains("gets numbers that half precision does not hold"), "{error}");
}

/// Configurations by the hundred thousand in a file's metadata, each of a part of its own.
#[test]
fn metadata_of_many_parts() {
    let place = tempfile::tempdir().expect("a folder");
    let path = place.path().join("x.safetensors");
    let mut file = File::stable_diffusion("");
    let mut index = json!({ "_class_name": "StableDiffusionPipeline" });
    let mut metadata = Map::new();
    for i in 0..MANY {
        metadata.insert(format!("headwater/part{i}/config.json"), json!("{}"));
        index[format!("part{i}")] = json!(["diffusers", "AutoencoderKL"]);
    }
    metadata.insert("headwater/model_index.json".into(), json!(index.to_string()));
    let start = file.header.find("\"__metadata__\":").expect("written with metadata");
    let own: Value =
        serde_json::Deserializer::from_str(&file.header[start + 15..]).into_iter().next().expect("one").expect("JSON");
    let old = format!("\"__metadata__\":{own},");
    file.header = file.header.replace(&old, &format!("\"__metadata__\":{},", Value::from(metadata)));
    file.write(&path);
    let files = ModelFiles::single(&path, None).expect("a whole model");
    let index = ModelIndex::read(&files).expect("an index");
    assert_eq!(index.components.len(), MANY);
    for component in &index.components {
        assert!(files.exists(&format!("{}/config.json", component.name)) && !files.has_weights(&component.name));
        assert_eq!(files.list(&component.name), ["config.json"]);
    }
    let conversion = Conversion::new(&files, None).expect("an index");
    assert_eq!(conversion.small_files().expect("readable").len(), MANY + 1);
}

/// An index of shards, a tokenizer with added tokens, and a configuration: lists by the hundred thousand.
#[test]
fn long_lists_in_small_files() {
    let place = tempfile::tempdir().expect("a folder");
    let unet = place.path().join("unet");
    std::fs::create_dir(&unet).expect("a folder");
    let map: Map<String, Value> = (0..MANY).map(|i| (format!("a.{i}"), json!(format!("{i}.safetensors")))).collect();
    std::fs::write(unet.join("model.safetensors.index.json"), json!({ "weight_map": map }).to_string())
        .expect("writes");
    let files = ModelFiles::folder(place.path()).expect("a folder");
    assert!(Checkpoint::open(&files, "unet", None).expect_err("no such shard").to_string().contains("is missing"));
    let folder = place.path().join("tokenizer");
    std::fs::create_dir(&folder).expect("a folder");
    std::fs::write(folder.join("vocab.json"), r#"{"a":0,"<|startoftext|>":1,"<|endoftext|>":2}"#).expect("writes");
    std::fs::write(folder.join("merges.txt"), "#version: 0.2\n").expect("writes");
    let added: Map<String, Value> = (0..MANY).map(|i| (format!("<word{i}>"), json!(i + 3))).collect();
    std::fs::write(folder.join("added_tokens.json"), Value::from(added).to_string()).expect("writes");
    let tokenizer = models::Tokenizer::open(&files, "tokenizer").expect("a tokenizer");
    assert_eq!(tokenizer.largest_id() as usize, MANY + 2);
    let fields: Map<String, Value> = (0..MANY).map(|i| (format!("field{i}"), json!(i))).collect();
    let mut fields = Value::from(fields);
    fields["model_type"] = json!("clip_text_model");
    fields["hidden_size"] = json!("wide");
    assert!(models::ClipTextConfig::from_json("c", fields.to_string().as_bytes()).is_err());
}
