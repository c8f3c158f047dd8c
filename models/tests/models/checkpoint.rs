//! Checkpoints: what is read, and what every kind of damage says.

use graph::{StorageType, WeightSource, WeightSpec};
use models::{Checkpoint, ModelFiles, Pieces};
use serde_json::{Value, json};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Everything a test file holds: a JSON header with its length, then data.
fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

fn tensor(dtype: &str, shape: &[usize], start: usize, end: usize) -> Value {
    json!({"dtype": dtype, "shape": shape, "data_offsets": [start, end]})
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn spec(name: &str, shape: &[usize]) -> WeightSpec {
    WeightSpec { name: name.into(), shape: shape.to_vec() }
}

/// A model folder on disk.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(files: &[(&str, &[u8])]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (path, bytes) in files {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a new folder");
            std::fs::write(path, bytes).expect("a new file");
        }
        Self(folder)
    }
    fn files(&self) -> ModelFiles {
        ModelFiles::folder(self.0.path()).expect("the folder exists")
    }
    fn open(&self) -> Result<Checkpoint, String> {
        let root = self.0.path().display().to_string();
        // Messages name the file; without the temporary folder's name they can be compared.
        Checkpoint::open(&self.files(), "unet", None).map_err(|error| error.to_string().replace(&root, "ROOT"))
    }
}

/// A checkpoint of one file. Read in pieces it says the same of what is wrong with it.
fn single(bytes: &[u8]) -> Result<Checkpoint, String> {
    let mapped = Folder::new(&[("unet/model.safetensors", bytes)]).open();
    let file = Arc::new(bytes.to_vec()) as Arc<dyn Pieces>;
    let files = ModelFiles::pieces("ROOT", [("unet/model.safetensors".to_owned(), file)].into());
    let pieces = Checkpoint::open(&files, "unet", None).map_err(|error| error.to_string());
    assert_eq!(pieces.err(), mapped.as_ref().err().cloned());
    mapped
}

const SINGLE: &str = "ROOT/unet/model.safetensors: ";

#[test]
fn tensors_of_every_storage_type_are_read() {
    let header = json!({
        "__metadata__": {"format": "pt"},
        "a.weight": tensor("F32", &[2, 1], 0, 8), "b": tensor("F16", &[2], 8, 12), "c": tensor("BF16", &[1], 12, 14),
    });
    let data = [floats(&[1.5, -2.0]), vec![0x00, 0x3C, 0x00, 0xC0], vec![0xC0, 0x3F]].concat();
    let checkpoint = single(&safetensors(&header.to_string(), &data)).expect("a good file");
    let read = |name: &str| checkpoint.weight(name).map(|view| (view.shape.clone(), view.to_f32()));
    assert_eq!(read("a.weight"), Some((vec![2, 1], vec![1.5, -2.0])));
    assert_eq!(read("b"), Some((vec![2], vec![1.0, -2.0])));
    assert_eq!(read("c"), Some((vec![1], vec![1.5])));
    assert_eq!(read("d"), None);
    assert_eq!(checkpoint.size(), 14);
    assert_eq!(checkpoint.weight("a.weight").expect("read above").storage, StorageType::F32);
    checkpoint.check(&[spec("a.weight", &[2, 1]), spec("b", &[2]), spec("c", &[1])]).expect("all is there");
}

#[test]
fn damaged_files_are_refused_in_one_sentence() {
    let one = |value: Value, data: &[u8]| safetensors(&json!({"a": value}).to_string(), data);
    let truncated = {
        let mut bytes = one(tensor("F32", &[4], 0, 16), &floats(&[0.0; 4]));
        bytes.truncate(bytes.len() - 3);
        bytes
    };
    let overlap = json!({"a": tensor("F32", &[2], 0, 8), "b": tensor("F32", &[2], 4, 12)}).to_string();
    let twice = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let huge = 1usize << 40;
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty", vec![], "is not a safetensors file: it has only 0 bytes"),
        ("five bytes", vec![1; 5], "is not a safetensors file: it has only 5 bytes"),
        (
            "huge header",
            [u64::MAX.to_le_bytes().as_slice(), b"{}"].concat(),
            "announces a header of 18446744073709551615 bytes",
        ),
        ("header past the end", [1000u64.to_le_bytes().as_slice(), b"{}"].concat(), "announces a header of 1000 bytes"),
        ("not JSON", safetensors("hello world", &[]), "its header is not the JSON that the format asks for"),
        ("not UTF-8", [2u64.to_le_bytes().as_slice(), &[0xFF, 0xFE]].concat(), "its header is not the JSON"),
        ("truncated data", truncated, "is truncated or damaged: its length is not what"),
        ("trailing bytes", one(tensor("F32", &[1], 0, 4), &[0; 9]), "is truncated or damaged: its length is not what"),
        (
            "overlap",
            safetensors(&overlap, &[0; 12]),
            "is damaged: the place of \"b\" overlaps another tensor or leaves a gap",
        ),
        (
            "gap",
            one(tensor("F32", &[1], 4, 8), &[0; 8]),
            "is damaged: the place of \"a\" overlaps another tensor or leaves a gap",
        ),
        ("backwards", one(tensor("F32", &[1], 8, 4), &[0; 8]), "is damaged: the place of \"a\""),
        ("out of range", one(tensor("F32", &[1000], 0, 4000), &[0; 4]), "is truncated or damaged"),
        ("wrong size", one(tensor("F32", &[3], 0, 4), &[0; 4]), "a tensor's place does not fit its shape and type"),
        ("overflow", one(tensor("F32", &[huge, huge], 0, 4), &[0; 4]), "a tensor's shape is larger than any memory"),
        ("twice", safetensors(twice, &[0; 4]), "is damaged: the header names \"a\" twice"),
        (
            "unknown type",
            one(json!({"dtype": "F3", "shape": [1], "data_offsets": [0, 1]}), &[0]),
            "its header is not the JSON",
        ),
        (
            "zip",
            b"PK\x03\x04 a torch archive".to_vec(),
            "is a zip archive, as torch.save writes, not safetensors: loading a pickle runs",
        ),
        ("pickle", b"\x80\x02}q\x00.........".to_vec(), "is a pickle, not safetensors: loading a pickle runs"),
    ];
    for (what, bytes, message) in cases {
        let error = single(&bytes).map(|_| ()).expect_err(what);
        assert!(error.starts_with(SINGLE) && error.contains(message) && !error.contains('\n'), "{what}: {error}");
    }
}

#[test]
fn no_single_fault_in_a_file_panics() {
    let header = json!({"a": tensor("F32", &[2], 0, 8), "b": tensor("F16", &[1, 1], 8, 10)}).to_string();
    let good = safetensors(&header, &[0; 10]);
    let open = |bytes: Vec<u8>, what: &str| {
        // Leaked, because embedded files must be `'static`.
        let file: &'static [u8] = Box::leak(bytes.into_boxed_slice());
        let files: &'static [(&str, &[u8])] = Box::leak(Box::new([("model.safetensors", file)]));
        match Checkpoint::open(&ModelFiles::embedded("model", files), "", None) {
            Err(error) => assert!(!error.to_string().contains('\n'), "{what}: {error}"),
            Ok(checkpoint) => {
                let names: Vec<String> = checkpoint.tensors().map(|(name, _)| name.to_owned()).collect();
                for view in names.iter().filter_map(|name| checkpoint.weight(name)) {
                    let elements: usize = view.shape.iter().product();
                    assert_eq!(view.bytes.len(), elements * view.storage.size(), "{what}");
                }
            }
        }
    };
    for length in 0..good.len() {
        open(good[..length].to_vec(), &format!("cut to {length} bytes"));
    }
    for at in 0..good.len() {
        for value in [0, 1, b'0', b'9', b'"', b'}', 0x7F, 0xFF] {
            let mut bytes = good.clone();
            bytes[at] = value;
            open(bytes, &format!("byte {at} is {value}"));
        }
    }
}

#[test]
fn pickles_and_missing_weights_are_explained() {
    type Files = &'static [(&'static str, &'static [u8])];
    let cases: [(Files, &str); 3] = [
        (
            &[("unet/diffusion_pytorch_model.bin", b"PK\x03\x04")],
            "has its weights only as a pickle (diffusion_pytorch_model.bin): ",
        ),
        (
            &[("unet/config.json", b"{}")],
            "has no weights (expected diffusion_pytorch_model.safetensors or model.safetensors)",
        ),
        (&[("vae/config.json", b"{}")], "has no weights"),
    ];
    for (files, message) in cases {
        let error = Folder::new(files).open().map(|_| ()).expect_err(message);
        assert!(error.starts_with("ROOT/unet: ") && error.contains(message), "{error}");
    }
    let error = ModelFiles::folder("/no/such/folder").expect_err("missing").to_string();
    assert_eq!(error, "/no/such/folder: is not a model folder (no such file or directory)");
    let folder = Folder::new(&[("a", b"")]);
    assert!(ModelFiles::folder(folder.0.path().join("a")).expect_err("a file").to_string().contains("is a file"));
}

#[test]
fn a_checkpoint_is_compared_with_the_graph() {
    let header = json!({
        "text_model.a.weight": tensor("F32", &[2], 0, 8), "b": tensor("F32", &[1], 8, 12), "nan": tensor("F16", &[1], 12, 14),
        "inf": tensor("F32", &[1], 14, 18), "int": tensor("I16", &[2], 18, 22), "stranger": tensor("F32", &[1], 22, 26),
        "text_model.embeddings.position_ids": tensor("I64", &[1], 26, 34), "nan32": tensor("F32", &[1], 34, 38),
        "inf16": tensor("BF16", &[1], 38, 40),
    });
    let data = [
        floats(&[1.0, f32::MAX, 3.0]),
        vec![0x00, 0x7E],
        floats(&[f32::NEG_INFINITY]),
        vec![0; 4],
        floats(&[1.0]),
        vec![0; 8],
        floats(&[f32::NAN]),
        vec![0x80, 0x7F],
    ]
    .concat();
    let checkpoint = single(&safetensors(&header.to_string(), &data)).expect("a good file");
    let mut specs = vec![
        spec("a.weight", &[2]),
        spec("b", &[3, 1]),
        spec("nan", &[1]),
        spec("inf", &[1]),
        spec("int", &[2]),
        spec("nan32", &[1]),
        spec("inf16", &[1]),
    ];
    specs.extend((0..7).map(|i| spec(&format!("absent.{i}"), &[1])));
    let report = checkpoint.report(&specs);
    assert_eq!(report.missing.len(), 7);
    assert_eq!(report.misshapen, [("b".to_owned(), vec![3, 1], vec![1])]);
    assert_eq!(report.not_finite, ["nan", "inf", "nan32", "inf16"]);
    assert_eq!(report.unsupported, [("int".to_owned(), "I16".to_owned())]);
    assert_eq!(report.extra, ["stranger"], "position_ids are harmless");
    let error = checkpoint.check(&specs).expect_err("much is wrong").to_string();
    let sentence = "unet: is missing absent.0, absent.1, absent.2, absent.3, absent.4 and 2 more; has another shape for b \
                    ([1] instead of [3, 1]); has an unsupported number type for int (I16); has infinities or NaN in nan, inf, \
                    nan32, inf16; holds tensors this model does not have: stranger";
    assert!(error.ends_with(sentence), "{error}");
    assert!(checkpoint.weight("a.weight").is_some(), "the prefix text_model. is found");
    assert!(checkpoint.weight("int").is_none(), "a table of whole numbers is a quantized weight");
}

/// What other types than those of devices are read as, and marks of weights that mean something else.
#[test]
fn other_number_types() {
    let header = json!({
        "eight": tensor("F8_E4M3", &[2, 3], 0, 6), "double": tensor("F64", &[1], 6, 14), "count": tensor("I64", &[], 14, 22),
    });
    let data = [&[0x38, 0xC0, 0x7E, 0x00, 0x01, 0x08][..], &0.1_f64.to_le_bytes(), &7_i64.to_le_bytes()].concat();
    let checkpoint = single(&safetensors(&header.to_string(), &data)).expect("a good file");
    let read = |name: &str| checkpoint.weight(name).map(|view| (view.storage, view.to_f32())).expect("read");
    assert_eq!(read("eight"), (StorageType::F16, vec![1.0, -2.0, 448.0, 0.0, 0.001_953_125, 0.015_625]));
    assert_eq!((read("double"), read("count")), ((StorageType::F32, vec![0.1]), (StorageType::F32, vec![7.0])));
    assert_eq!(checkpoint.stored_as("eight"), Some(StorageType::F16));
    checkpoint.check(&[spec("eight", &[2, 3]), spec("double", &[1]), spec("count", &[])]).expect("all is there");
    for mark in ["b.scale_weight", "scaled_fp8", "a.weight.absmax", "a.weight.quant_state.bitsandbytes__nf4"] {
        let header = json!({ "a.weight": tensor("F8_E4M3", &[1], 0, 1), mark: tensor("F32", &[1], 1, 5) });
        let data = [&[0x38][..], &floats(&[2.0])].concat();
        let checkpoint = single(&safetensors(&header.to_string(), &data)).expect("a good file");
        let error = checkpoint.check(&[spec("a.weight", &[1])]).expect_err(mark).to_string();
        assert!(error.ends_with(&format!("unet: is quantized, which is not supported: {mark}")), "{error}");
    }
}

/// Weights of eight bits that ComfyUI scales: each is its number times the scale, and the marks around them are no tensors of the model.
#[test]
fn scaled_weights_of_eight_bits() {
    let eight = [0x38, 0xC0, 0x7E, 0x00, 0x01, 0x08];
    let plain = [1.0, -2.0, 448.0, 0.0, 0.001_953_125, 0.015_625_f32];
    let json = |text: &str| (tensor("U8", &[text.len()], 0, text.len()), text.as_bytes().to_vec());
    let scale = |shape: &[usize], values: &[f32]| (tensor("F32", shape, 0, 4 * values.len()), floats(values));
    let read = |extra: &[(&str, (Value, Vec<u8>))], metadata: Value| {
        let (mut header, mut data) = (json!({ "a.weight": tensor("F8_E4M3", &[2, 3], 0, 6) }), eight.to_vec());
        for (name, (info, bytes)) in extra {
            let (start, mut info) = (data.len(), info.clone());
            data.extend(bytes);
            info["data_offsets"] = json!([start, data.len()]);
            header[*name] = info;
        }
        if !metadata.is_null() {
            header["__metadata__"] = metadata;
        }
        single(&safetensors(&header.to_string(), &data)).expect("a good file")
    };
    let none = Value::Null;
    let layers = |own: Value| json!({ "_quantization_metadata": json!({ "layers": { "a": own } }).to_string() });
    let one = [0.013_f32];
    let rows = [0.5_f32, 3.0];
    let fp8 = r#"{"format": "float8_e4m3fn"}"#;
    let mark = || ("scaled_fp8", (tensor("F8_E4M3", &[0], 0, 0), Vec::new()));
    type Extra<'a> = Vec<(&'a str, (Value, Vec<u8>))>;
    type Case<'a> = (Extra<'a>, Value, &'a [f32]);
    let read_cases: Vec<Case<'_>> = vec![
        (vec![("a.scale_weight", scale(&[], &one)), mark()], none.clone(), &one),
        (
            vec![("a.scale_weight", scale(&[1], &one)), ("a.scale_input", scale(&[1], &[7.0])), mark()],
            none.clone(),
            &one,
        ),
        (vec![("a.scale_weight", scale(&[2, 1], &rows)), mark()], none.clone(), &rows),
        (vec![("a.weight_scale", scale(&[2], &rows)), ("a.comfy_quant", json(fp8))], none.clone(), &rows),
        (
            vec![("a.weight_scale", scale(&[], &one)), ("a.input_scale", scale(&[], &[7.0]))],
            layers(json!({ "format": "float8_e4m3fn", "full_precision_matrix_mult": true })),
            &one,
        ),
    ];
    for (extra, metadata, scales) in read_cases {
        let checkpoint = read(&extra, metadata);
        let what = extra[0].0;
        let report = checkpoint.report(&[spec("a.weight", &[2, 3])]);
        assert!(report.is_usable() && report.extra.is_empty(), "{what}: {report}");
        let view = checkpoint.weight("a.weight").expect("read");
        let wanted: Vec<f32> =
            plain.iter().enumerate().map(|(i, value)| value * scales[i / 3 % scales.len()]).collect();
        assert_eq!((view.storage, view.to_f32()), (StorageType::F32, wanted), "{what}");
        assert_eq!(checkpoint.stored_as("a.weight"), Some(StorageType::F32));
    }
    let refused: Vec<(Extra<'_>, Value, &str)> = vec![
        (vec![("a.scale_weight", scale(&[3], &[1.0, 2.0, 3.0]))], none.clone(), "a.scale_weight"),
        (vec![("a.scale_weight", scale(&[1], &[f32::NAN]))], none.clone(), "a.scale_weight"),
        (vec![("b.weight_scale", scale(&[], &one))], none.clone(), "b.weight_scale"),
        (
            vec![("a.weight_scale", scale(&[], &one)), ("a.weight_scale_2", scale(&[], &one))],
            none.clone(),
            "a.weight_scale_2",
        ),
        (
            vec![("a.weight_scale", scale(&[], &one)), ("a.comfy_quant", json(r#"{"format": "mxfp8"}"#))],
            none.clone(),
            "a.comfy_quant",
        ),
        (
            vec![("a.weight_scale", scale(&[], &one))],
            layers(json!({ "format": "float8_e4m3fn", "convrot": true })),
            "a.weight_scale",
        ),
        (vec![("a.weight_scale", scale(&[], &one)), ("a.scale_weight", scale(&[], &[2.0]))], none, "a.scale_weight"),
    ];
    for (extra, metadata, name) in refused {
        let error = read(&extra, metadata).check(&[spec("a.weight", &[2, 3])]).expect_err(name).to_string();
        assert!(error.contains("is quantized, which is not supported: ") && error.contains(name), "{name}: {error}");
    }
}

/// The x4 upscaler goes into one file and comes out of it as it was.
#[test]
fn an_upscaler_in_one_file() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens/pipelines/upscaler");
    let files = ModelFiles::folder(golden).expect("the goldens");
    let place = tempfile::tempdir().expect("a temporary folder");
    let path = place.path().join("x4.safetensors");
    let mut out = std::fs::File::create(&path).expect("a new file");
    models::Conversion::new(&files, None).expect("an index").write_single(&mut out).expect("written");
    let single = ModelFiles::single(&path, None).expect("an upscaler");
    assert_eq!(single.family(), Some("Stable Diffusion's x4 upscaler"));
    for part in ["unet", "vae", "text_encoder"] {
        let [own, back] = [&files, &single].map(|files| Checkpoint::open(files, part, None).expect(part));
        let specs: Vec<WeightSpec> = back.tensors().map(|(name, shape)| spec(name, shape)).collect();
        assert!(own.check(&specs).expect("all of them").is_empty(), "{part}");
        for WeightSpec { name, .. } in &specs {
            let [own, back] = [&own, &back].map(|weights| weights.weight(name).expect("read").to_f32());
            assert_eq!(own, back, "{part}: {name}");
        }
    }
    for path in ["model_index.json", "scheduler/scheduler_config.json", "low_res_scheduler/scheduler_config.json"] {
        assert_eq!(files.read(path).expect("there"), single.read(path).expect("carried"), "{path}");
    }
}

/// A layer too many is no left-over: the configuration is of a shallower model.
#[test]
fn further_layers_are_refused() {
    let names = ["text_model.layers.0.norm.weight", "text_model.layers.1.norm.weight", "text_model.layers.1.x"];
    let header: serde_json::Map<String, Value> =
        names.iter().enumerate().map(|(i, name)| ((*name).to_owned(), tensor("F32", &[1], 4 * i, 4 * i + 4))).collect();
    let file = safetensors(&Value::from(header).to_string(), &floats(&[1.0; 3]));
    let error =
        single(&file).expect("a good file").check(&[spec("layers.0.norm.weight", &[1])]).expect_err("two layers");
    let sentence = "holds more layers than its configuration says: text_model.layers.1.norm.weight; holds tensors this model \
                    does not have: text_model.layers.1.x";
    assert!(error.to_string().ends_with(sentence), "{error}");
}

#[test]
fn older_names_and_unused_parts() {
    let names = ["query", "key", "value", "proj_attn"].map(|name| format!("decoder.attentions.0.{name}.weight"));
    let mut header = json!({"encoder.a": tensor("F32", &[1], 16, 20)});
    for (i, name) in names.iter().enumerate() {
        header[name] = tensor("F32", &[1], 4 * i, 4 * i + 4);
    }
    let file = safetensors(&header.to_string(), &floats(&[1.0, 2.0, 3.0, 4.0, 5.0]));
    let checkpoint = single(&file).expect("a good file");
    let now = ["to_q", "to_k", "to_v", "to_out.0"].map(|name| format!("decoder.attentions.0.{name}.weight"));
    let values = now.each_ref().map(|name| checkpoint.weight(name).expect("found by its older name").to_f32()[0]);
    assert_eq!(values, [1.0, 2.0, 3.0, 4.0]);
    let specs = now.map(|name| spec(&name, &[1]));
    assert_eq!(checkpoint.report(&specs).extra, ["encoder.a"]);
    assert_eq!(checkpoint.check(&specs).expect("all is there"), ["encoder.a"], "what is left over stops nothing");
    let rest = checkpoint.without(&["encoder."]).check(&specs).expect("the rest is all there is");
    assert!(rest.is_empty(), "{rest:?}");
}

#[test]
fn variants_and_shards_are_found() {
    let file = |value: f32| safetensors(&json!({"a": tensor("F32", &[1], 0, 4)}).to_string(), &floats(&[value]));
    let (plain, half) = (file(1.0), file(2.0));
    let read = |folder: &Folder, variant: Option<&str>| {
        let checkpoint = Checkpoint::open(&folder.files(), "unet", variant).map_err(|error| error.to_string())?;
        Ok::<_, String>(checkpoint.weight("a").expect("it is there").to_f32()[0])
    };
    let both = Folder::new(&[("unet/model.safetensors", &plain), ("unet/model.fp16.safetensors", &half)]);
    assert_eq!(read(&both, None), Ok(1.0));
    assert_eq!(read(&both, Some("fp16")), Ok(2.0));
    assert!(read(&both, Some("bf16")).expect_err("absent").ends_with("has no safetensors weights of the variant bf16"));
    let only = Folder::new(&[("unet/diffusion_pytorch_model.fp16.safetensors", &half)]);
    assert_eq!(read(&only, None), Ok(2.0), "the only variant there is");

    let shard = safetensors(&json!({"b": tensor("F32", &[1], 0, 4)}).to_string(), &floats(&[3.0]));
    let index = br#"{"metadata": {}, "weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}"#;
    let name = "unet/diffusion_pytorch_model.safetensors.index.json";
    let sharded = Folder::new(&[(name, index), ("unet/m-1.safetensors", &plain), ("unet/m-2.safetensors", &shard)]);
    let checkpoint = sharded.open().expect("two good shards");
    checkpoint.check(&[spec("a", &[1]), spec("b", &[1])]).expect("both are there");

    let missing = Folder::new(&[(name, index), ("unet/m-1.safetensors", &plain)]);
    assert_eq!(missing.open().map(|_| ()), Err("ROOT/unet/m-2.safetensors: is missing from this model".to_owned()));
    let same = Folder::new(&[(name, index), ("unet/m-1.safetensors", &plain), ("unet/m-2.safetensors", &plain)]);
    let error = same.open().map(|_| ()).expect_err("the same tensor twice");
    assert_eq!(error, "ROOT/unet/m-2.safetensors: holds \"a\", as another shard does");
    let outside = Folder::new(&[(name, br#"{"weight_map": {"a": "../../secret.safetensors"}}"#)]);
    let error = outside.open().map(|_| ()).expect_err("a path that leads out");
    assert!(error.ends_with(".safetensors.index.json: names a file outside its folder"), "{error}");

    // In a whole model, parts without weights of the variant use their other files.
    let pipeline = br#"{"_class_name": "P", "unet": ["diffusers", "U"], "vae": ["diffusers", "V"]}"#;
    let mixed = [
        ("model_index.json", &pipeline[..]),
        ("unet/model.safetensors", &plain),
        ("unet/model.fp16.safetensors", &half),
        ("vae/model.safetensors", &plain),
    ];
    let mixed = Folder::new(&mixed);
    let half = mixed.files().with_variant("fp16").expect("a part has it");
    let value =
        |part: &str| Checkpoint::open(&half, part, None).expect("whole").weight("a").expect("there").to_f32()[0];
    assert_eq!((value("unet"), value("vae")), (2.0, 1.0));
    let error = mixed.files().with_variant("bf16").map(|_| ()).expect_err("no part has it").to_string();
    assert!(error.ends_with("has no weights of the variant bf16"), "{error}");
}

#[test]
fn a_model_may_be_part_of_the_program_or_be_read_in_pieces() {
    static FILE: [u8; 76] =
        *b"\x40\0\0\0\0\0\0\0{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}          \0\0\x80\x3f";
    static FILES: [(&str, &[u8]); 2] = [("unet/model.safetensors", &FILE), ("model_index.json", b"{}")];
    let pieces = FILES.iter().map(|(path, bytes)| ((*path).to_owned(), Arc::new(bytes.to_vec()) as Arc<dyn Pieces>));
    for files in [ModelFiles::embedded("icons", &FILES), ModelFiles::pieces("icons", pieces.collect())] {
        assert_eq!(
            (files.list(""), files.list("unet")),
            (vec!["model_index.json".into()], vec!["model.safetensors".into()])
        );
        assert!(files.exists("unet/model.safetensors") && !files.exists("unet"));
        let checkpoint = Checkpoint::open(&files, "unet", None).expect("a good file");
        assert_eq!(checkpoint.weight("a").expect("it is there").to_f32(), [1.0]);
        assert_eq!(*files.read("model_index.json").expect("it is there"), *b"{}");
        for error in [files.read("x.json").map(drop), files.open("x.json").map(drop)] {
            assert_eq!(error.expect_err("absent").to_string(), "icons/x.json: is missing from this model");
        }
    }
}

/// A file that counts what is read of it, and that may end early.
#[derive(Debug)]
struct Counted {
    bytes: Vec<u8>,
    largest: AtomicUsize,
    ends: AtomicUsize,
}

impl Pieces for Counted {
    fn length(&self) -> usize {
        self.bytes.len()
    }
    fn read(&self, range: Range<usize>) -> Result<Vec<u8>, String> {
        self.largest.fetch_max(range.len(), Ordering::Relaxed);
        if range.end > self.ends.load(Ordering::Relaxed) {
            return Err("was changed by another program".into());
        }
        self.bytes.read(range)
    }
}

#[test]
fn one_tensor_at_a_time_is_read_of_a_file_in_pieces() {
    let names: Vec<String> = (0..100).map(|i| format!("layer.{i}.weight")).collect();
    let each = |i: usize| tensor("F32", &[1000], i * 4000, (i + 1) * 4000);
    let header: serde_json::Map<String, Value> =
        names.iter().enumerate().map(|(i, name)| (name.clone(), each(i))).collect();
    let header = Value::Object(header).to_string();
    let values: Vec<f32> = (0..100_000).map(|i| i as f32).collect();
    let bytes = safetensors(&header, &floats(&values));
    let most = (header.len() + 8).max(4000);
    let file = Arc::new(Counted { ends: bytes.len().into(), bytes, largest: 0.into() });
    let files = ModelFiles::pieces("model", [("unet/model.safetensors".to_owned(), file.clone() as _)].into());
    let checkpoint = Checkpoint::open(&files, "unet", None).expect("a good file");
    let specs: Vec<WeightSpec> = names.iter().map(|name| spec(name, &[1000])).collect();
    checkpoint.check(&specs).expect("all is there");
    for (name, values) in names.iter().zip(values.chunks(1000)) {
        assert_eq!(checkpoint.weight(name).expect("it is there").to_f32(), values);
    }
    assert_eq!(file.largest.load(Ordering::Relaxed), most);
    // What was there when the model was opened may be gone later.
    file.ends.store(most + 4000, Ordering::Relaxed);
    assert!(checkpoint.weight("layer.99.weight").is_none());
    assert_eq!(checkpoint.why_not("layer.99.weight"), "was changed by another program (a file of model/unet)");
    assert_eq!(checkpoint.why_not("layer.100.weight"), "is missing from the checkpoint");
    let error = checkpoint.check(&specs[98..]).expect_err("it is gone").to_string();
    assert_eq!(error.split("; ").next(), Some("model/unet: could not be read at layer.98.weight, layer.99.weight"));
}

#[test]
fn a_scale_that_cannot_be_read_is_not_left_out() {
    let tensors = json!({ "a.weight": tensor("F8_E4M3", &[4], 0, 4), "a.scale_weight": tensor("F32", &[1], 4, 8) });
    let header = tensors.to_string();
    let bytes = safetensors(&header, &[&[0x38; 4][..], &2.0_f32.to_le_bytes()].concat());
    let all = bytes.len();
    let file = Arc::new(Counted { ends: all.into(), bytes, largest: 0.into() });
    let files = ModelFiles::pieces("model", [("unet/model.safetensors".to_owned(), file.clone() as _)].into());
    let open = || Checkpoint::open(&files, "unet", None);
    assert_eq!(open().expect("a good file").weight("a.weight").expect("it is there").to_f32(), [2.0; 4]);
    file.ends.store(all - 4, Ordering::Relaxed);
    let error = open().map(drop).expect_err("the scale is gone").to_string();
    assert_eq!(error, "model/unet/model.safetensors: was changed by another program");
}

#[test]
fn checkpoints_that_diffusers_wrote_fit_their_models() {
    use graph::{Rate, Scope};
    use models::{
        ClipHiddenState, ClipTextConfig, PixArtConfig, PixArtInputs, clip_text_model, pixart_transformer_2d_model,
    };
    for name in ["pixels", "epsilon"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens/pipelines").join(name);
        let files = ModelFiles::folder(folder).expect("the golden exists");
        let json = |path: &str| files.read(path).expect("a configuration");
        let path = "text_encoder/config.json";
        let text = ClipTextConfig::from_json(path, &json(path)).unwrap_or_else(|error| panic!("{error}"));
        let path = "transformer/config.json";
        let config = PixArtConfig::from_json(path, &json(path)).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(config.encoder_channels(), text.hidden_size);

        let s = Scope::root();
        let hidden = clip_text_model(&s, &text, &s.input("ids", &[1, 20], Rate::Once), None, ClipHiddenState::Last);
        let graph = s.finish(&[("hidden", &hidden)]).expect("a graph");
        let checkpoint = Checkpoint::open(&files, "text_encoder", None).unwrap_or_else(|error| panic!("{error}"));
        checkpoint.check(&graph.weights()).unwrap_or_else(|error| panic!("{error}"));

        let s = Scope::root();
        let output = pixart_transformer_2d_model(
            &s,
            &config,
            &PixArtInputs {
                sample: &s.input("sample", &[1, 32, 16, 3], Rate::Step),
                timestep: &s.input("timestep", &[1], Rate::Step),
                encoder_hidden_states: &s.input("text", &[1, 20, text.hidden_size], Rate::Once),
                encoder_attention_mask: None,
                size: None,
            },
        );
        let graph = s.finish(&[("sample", &config.without_variance(&output))]).expect("a graph");
        assert_eq!(graph.node(graph.output("sample").expect("named above")).shape, [1, 32, 16, 3]);
        let checkpoint = Checkpoint::open(&files, "transformer", None).unwrap_or_else(|error| panic!("{error}"));
        checkpoint.check(&graph.weights()).unwrap_or_else(|error| panic!("{error}"));
    }
}
