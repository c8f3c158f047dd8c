//! Adapters of every kind against PyTorch, and what is said of those that cannot be added.

use graph::WeightSource;
use models::{Checkpoint, Lora, ModelFiles};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

type Tensor = (Dtype, Vec<usize>, Vec<u8>);
type Tensors = BTreeMap<String, Tensor>;

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens/adapters")
}

fn floats(shape: &[usize], values: &[f32]) -> Tensor {
    (Dtype::F32, shape.to_vec(), values.iter().flat_map(|value| value.to_le_bytes()).collect())
}

fn filled(shape: &[usize], value: f32) -> Tensor {
    floats(shape, &vec![value; shape.iter().product()])
}

fn write(path: &Path, tensors: &Tensors, metadata: Option<(&str, &str)>) {
    let view = |(dtype, shape, bytes): &Tensor| {
        TensorView::new(*dtype, shape.clone(), Box::leak(bytes.clone().into_boxed_slice()))
            .expect("bytes of that shape")
    };
    let views: Vec<(&String, TensorView<'_>)> = tensors.iter().map(|(name, tensor)| (name, view(tensor))).collect();
    let metadata = metadata.map(|(key, text)| [(key.to_owned(), text.to_owned())].into());
    std::fs::write(path, safetensors::serialize(views, metadata).expect("serializable")).expect("writable");
}

/// A folder with one network of these weights.
fn model(network: &[u8]) -> tempfile::TempDir {
    let place = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(place.path().join("unet")).expect("a folder");
    std::fs::write(place.path().join("unet/config.json"), "{}").expect("writable");
    std::fs::write(place.path().join("unet/diffusion_pytorch_model.safetensors"), network).expect("writable");
    place
}

fn base() -> tempfile::TempDir {
    model(&std::fs::read(goldens().join("base.safetensors")).expect("the goldens"))
}

fn added(place: &Path, lora: &Path, weight: f64) -> Result<Checkpoint, String> {
    let text = |error: models::ModelError| error.to_string();
    let files = ModelFiles::folder(place).map_err(text)?;
    let files = files.with_loras(&[Lora::open(lora, weight).map_err(text)?]).map_err(text)?;
    Checkpoint::open(&files, "unet", None).map_err(text)
}

#[test]
fn every_kind_adds_what_it_adds_in_pytorch() {
    let place = base();
    let cases = std::fs::read(goldens().join("cases.json")).expect("the goldens");
    let cases: Vec<Value> = serde_json::from_slice(&cases).expect("JSON");
    assert!(cases.len() > 60, "{} cases", cases.len());
    for case in cases {
        let (file, weight) = (case["file"].as_str().expect("a name"), case["weight"].as_f64().expect("a number"));
        let checkpoint = added(place.path(), &goldens().join(file), weight).expect(file);
        for (name, wanted) in case["result"].as_object().expect("tensors") {
            let ours = checkpoint.weight(name).expect(name).to_f32();
            let data: Vec<f64> = wanted["data"].as_array().expect("numbers").iter().filter_map(Value::as_f64).collect();
            assert_eq!(ours.len(), data.len(), "{file}: {name}");
            let largest = data.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
            let off = ours.iter().zip(&data).map(|(ours, wanted)| (f64::from(*ours) - wanted).abs());
            let (off, error) = (off.fold(0.0, f64::max) / largest, wanted["f32_error"].as_f64().expect("a number"));
            // The goldens have twelve digits.
            assert!(off <= 4.0 * error + 1e-12, "{file} at {weight}: {name} is {off:e} off, PyTorch's f32 {error:e}");
        }
    }
}

const LINEAR: &str = "mid_block.attentions.0.proj_in";

#[test]
fn half_precision_stays_so_and_weights_of_nothing_change_nothing() {
    let half = |values: &[u16]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let one = 0x3C00;
    let tensors = Tensors::from([(format!("{LINEAR}.weight"), (Dtype::F16, vec![2, 2], half(&[one; 4])))]);
    let place = tempfile::tempdir().expect("a folder");
    let path = place.path().join("x.safetensors");
    write(&path, &tensors, None);
    let model = model(&std::fs::read(&path).expect("written above"));
    for ending in [["lora_up.weight", "lora_down.weight"], ["lokr_w1", "lokr_w2"]] {
        let shapes = if ending[0] == "lokr_w1" { [[1, 1], [2, 2]] } else { [[2, 1], [1, 2]] };
        let mut tensors: Tensors = ending
            .iter()
            .zip(shapes)
            .map(|(ending, shape)| (format!("lora_unet_{}.{ending}", LINEAR.replace('.', "_")), filled(&shape, 0.5)))
            .collect();
        let alpha = (Dtype::I64, vec![], 1_i64.to_le_bytes().to_vec());
        tensors.insert(format!("lora_unet_{}.alpha", LINEAR.replace('.', "_")), alpha);
        write(&path, &tensors, None);
        for (weight, wanted) in [(0.0, 1.0), (1.0, 1.25), (-4.0, 0.0)] {
            let checkpoint = added(model.path(), &path, weight).expect("it fits");
            let view = checkpoint.weight(&format!("{LINEAR}.weight")).expect("there");
            assert_eq!(view.storage, graph::StorageType::F16);
            assert_eq!(view.to_f32(), [wanted; 4], "{ending:?} at {weight}");
        }
    }
}

#[test]
fn adapters_that_cannot_be_added_say_so_in_one_sentence() {
    let base = base();
    let place = tempfile::tempdir().expect("a folder");
    let path = place.path().join("bad.safetensors");
    let kohya = |ending: &str| format!("lora_unet_{}.{ending}", LINEAR.replace('.', "_"));
    let good = || {
        Tensors::from([
            (kohya("lora_up.weight"), filled(&[6, 2], 0.1)),
            (kohya("lora_down.weight"), filled(&[2, 4], 0.1)),
        ])
    };
    let with = |more: &[(&str, Tensor)]| {
        let mut tensors = good();
        tensors.extend(more.iter().map(|(ending, tensor)| (kohya(ending), tensor.clone())));
        tensors
    };
    let only = |pieces: &[(&str, &[usize])]| -> Tensors {
        pieces.iter().map(|(ending, shape)| (kohya(ending), filled(shape, 0.1))).collect()
    };
    let named = |name: &str, shape: &[usize]| Tensors::from([(name.to_owned(), filled(shape, 0.1))]);
    let hada =
        |t: &[usize]| only(&[("hada_w1_a", &[6, 2]), ("hada_w1_b", &[2, 4]), ("hada_w2_a", t), ("hada_w2_b", &[2, 4])]);
    let cases: Vec<(&str, Tensors, f64, &[&str])> = vec![
        ("nothing", Tensors::new(), 1.0, &["holds no tensor"]),
        ("an empty up", with(&[("lora_up.weight", filled(&[0, 2], 0.0))]), 1.0, &["empty tensor", "lora_up", "[0, 2]"]),
        ("an empty down", with(&[("lora_down.weight", filled(&[2, 0], 0.0))]), 1.0, &["empty tensor", "lora_down"]),
        ("rank zero", only(&[("lora_up.weight", &[6, 0]), ("lora_down.weight", &[0, 4])]), 1.0, &["empty tensor"]),
        ("an empty difference", only(&[("diff", &[0])]), 1.0, &["empty tensor", ".diff"]),
        ("an empty alpha", with(&[("alpha", filled(&[0], 0.0))]), 1.0, &["empty tensor", ".alpha"]),
        ("a long alpha", with(&[("alpha", filled(&[2], 1.0))]), 1.0, &[".alpha of shape [2]", "one number"]),
        ("NaN for alpha", with(&[("alpha", filled(&[], f32::NAN))]), 1.0, &["infinities or NaN", ".alpha"]),
        ("NaN in up", with(&[("lora_up.weight", filled(&[6, 2], f32::NAN))]), 1.0, &["infinities or NaN", "lora_up"]),
        (
            "bytes",
            with(&[("lora_up.weight", (Dtype::U8, vec![6, 2], vec![0; 12]))]),
            1.0,
            &["number type U8", "lora_up"],
        ),
        ("a large alpha", with(&[("alpha", filled(&[], 3e38))]), 1e3, &["too large", "infinities or NaN", LINEAR]),
        ("a large weight", good(), 1e300, &["too large", "at the weight 1", LINEAR, "infinities or NaN"]),
        ("an infinite weight", good(), f64::INFINITY, &["too large", LINEAR]),
        ("a weight that is no number", good(), f64::NAN, &["too large", LINEAR]),
        ("one matrix", only(&[("lora_up.weight", &[6, 2])]), 1.0, &["only one of the two matrices", "lora_up"]),
        ("one matrix of LoHa", only(&[("hada_w1_a", &[6, 2]), ("hada_w1_b", &[2, 4])]), 1.0, &["only one", "proj_in"]),
        ("one factor of LoKr", only(&[("lokr_w1", &[2, 2])]), 1.0, &["only one", "proj_in"]),
        ("a core alone", only(&[("lora_mid.weight", &[2, 2, 3, 3])]), 1.0, &["only one", "proj_in"]),
        (
            "ranks that differ",
            with(&[("lora_up.weight", filled(&[6, 3], 0.1))]),
            1.0,
            &["do not fit each other", "[6, 3]"],
        ),
        ("vectors", only(&[("lora_up.weight", &[6]), ("lora_down.weight", &[4])]), 1.0, &["do not fit each other"]),
        ("a core of another rank", with(&[("lora_mid.weight", filled(&[3, 2, 1, 1], 0.1))]), 1.0, &["do not fit"]),
        ("LoHa's factors differ", hada(&[5, 2]), 1.0, &["do not fit each other", "hada_w1_a"]),
        (
            "another width",
            with(&[("lora_up.weight", filled(&[7, 2], 0.1))]),
            1.0,
            &["another model", "[7, 2]", "[6, 4]"],
        ),
        (
            "LoKr of another width",
            only(&[("lokr_w1", &[2, 2]), ("lokr_w2", &[3, 3])]),
            1.0,
            &["another model", "[6, 4]"],
        ),
        (
            "lengths of another width",
            with(&[("dora_scale", filled(&[1, 5], 1.0))]),
            1.0,
            &["another model", "lengths [1, 5]"],
        ),
        ("lengths alone", only(&[("dora_scale", &[1, 4])]), 1.0, &["dora_scale", "nothing that it belongs to"]),
        ("alpha alone", only(&[("alpha", &[])]), 1.0, &[".alpha", "nothing that it belongs to"]),
        ("two kinds at once", with(&[("lokr_w1", filled(&[2, 2], 0.1))]), 1.0, &["lokr_w1", "does not belong"]),
        ("an OFT", only(&[("oft_blocks", &[2, 2, 2])]), 1.0, &["is an OFT", "oft_blocks", "not supported"]),
        ("an IA3", only(&[("on_input", &[1])]), 1.0, &["is an (IA)³", "not supported"]),
        ("a GLoRA", only(&[("a1.weight", &[2, 2])]), 1.0, &["is a GLoRA", "not supported"]),
        ("a stranger", with(&[("something", filled(&[1], 0.0))]), 1.0, &["no LoRA", "proj_in.something"]),
        ("another model's layer", named("lora_unet_x.diff", &[1]), 1.0, &["another model", "lora_unet_x"]),
        (
            "a bias that the model has not",
            named("unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.diff_b", &[6]),
            1.0,
            &["a bias of", "to_q", "another model"],
        ),
        ("a bias of another length", only(&[("diff_b", &[5])]), 1.0, &["another model", "[5]", "[6]"]),
        (
            "an embedding's word",
            named("bundle_emb.cat.string_to_param.*", &[1, 2, 3]),
            1.0,
            &["bundle_emb.cat", "[1, 2, 3]"],
        ),
        ("a word without a name", named("bundle_emb. .string_to_param.*", &[1, 2]), 1.0, &["no word"]),
    ];
    for (what, tensors, weight, parts) in cases {
        write(&path, &tensors, None);
        let first = added(base.path(), &path, weight).map(|_| ()).expect_err(what);
        assert!(first.contains("bad.safetensors") && !first.contains('\n'), "{what}: {first}");
        parts.iter().for_each(|part| assert!(first.contains(part), "{what}: {part}: {first}"));
        for _ in 0..4 {
            assert_eq!(
                added(base.path(), &path, weight).map(|_| ()).expect_err(what),
                first,
                "{what}: always the same"
            );
        }
    }
    for (text, part) in
        [("{", "broken lora_adapter_metadata"), (r#"{"unet.alpha_pattern": {"to_[qk]": 1}}"#, "to_[qk]")]
    {
        write(&path, &good(), Some(("lora_adapter_metadata", text)));
        let error = added(base.path(), &path, 1.0).map(|_| ()).expect_err(text);
        assert!(error.contains(part) && !error.contains('\n'), "{error}");
    }
}

#[test]
fn an_adapter_for_a_weight_of_no_rows_does_not_panic() {
    let place = tempfile::tempdir().expect("a folder");
    let header = r#"{"zero.weight":{"dtype":"F16","shape":[0,4],"data_offsets":[0,0]},"none.weight":{"dtype":"F16","shape":[4,0],"data_offsets":[0,0]}}"#;
    let model = model(&[&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat());
    let path = place.path().join("bad.safetensors");
    for (name, up, down) in [("zero", [1, 1], [1, 4]), ("none", [4, 1], [1, 1])] {
        let of = |way: &str| format!("unet.{name}.lora_{way}.weight");
        write(&path, &Tensors::from([(of("A"), filled(&down, 1.0)), (of("B"), filled(&up, 1.0))]), None);
        let error = added(model.path(), &path, 1.0).map(|_| ()).expect_err(name);
        assert!(error.contains("another model"), "{error}");
    }
}

#[test]
fn words_inside_an_adapter_are_learned() {
    let base = base();
    let place = tempfile::tempdir().expect("a folder");
    let path = place.path().join("style.safetensors");
    let tensors = Tensors::from([
        (format!("unet.{LINEAR}.lora_A.weight"), filled(&[2, 4], 0.1)),
        (format!("unet.{LINEAR}.lora_B.weight"), filled(&[6, 2], 0.1)),
        ("bundle_emb.cat.string_to_param.*".into(), filled(&[2, 3], 1.0)),
        ("bundle_emb.dog.emb_params".into(), filled(&[3], 2.0)),
        ("bundle_emb.owl.clip_l".into(), filled(&[1, 3], 3.0)),
        ("bundle_emb.owl.clip_g".into(), filled(&[1, 5], 4.0)),
    ]);
    write(&path, &tensors, None);
    let lora = Lora::open(&path, 1.0).expect("an adapter with words");
    assert_eq!((lora.layers(), lora.spelling(), lora.ranks()), (1, "PEFT", (2, 2)));
    let files = ModelFiles::folder(base.path()).expect("a folder").with_loras(&[lora]).expect("it fits");
    let words: Vec<&str> = files.embeddings().iter().map(|word| word.token()).collect();
    assert_eq!(words, ["cat", "dog", "owl"]);
    let learned = files.embeddings()[0].learned("model", &[3]).expect("it fits");
    assert_eq!(learned[0].as_ref().map(|learned| (learned.rows, learned.values.len())), Some((2, 6)));
    let learned = files.embeddings()[2].learned("model", &[3, 5]).expect("it fits");
    assert_eq!(learned.iter().flatten().map(|learned| learned.values[0]).collect::<Vec<_>>(), [3.0, 4.0]);
    assert_eq!(files.with_embeddings(Vec::new()).embeddings().len(), 3, "others are put beside them");
}

#[test]
fn settings_are_read_from_the_file_beside_an_adapter_of_peft() {
    let base = base();
    let place = tempfile::tempdir().expect("a folder");
    let path = place.path().join("adapter_model.safetensors");
    let tensors = Tensors::from([
        (format!("base_model.model.{LINEAR}.lora_A.weight"), filled(&[2, 4], 1.0)),
        (format!("base_model.model.{LINEAR}.lora_B.weight"), filled(&[6, 2], 1.0)),
    ]);
    write(&path, &tensors, None);
    let name = format!("{LINEAR}.weight");
    let read = || added(base.path(), &path, 1.0).expect("it fits").weight(&name).expect("there").to_f32();
    let plain = ModelFiles::folder(base.path()).expect("a folder");
    let plain = Checkpoint::open(&plain, "unet", None).expect("whole").weight(&name).expect("there").to_f32();
    let by = |values: &[f32]| values.iter().zip(&plain).map(|(a, b)| (a - b).round()).collect::<Vec<_>>();
    assert_eq!(by(&read()), [2.0; 24]);
    std::fs::write(place.path().join("adapter_config.json"), r#"{"r": 2, "lora_alpha": 8}"#).expect("writable");
    assert_eq!(by(&read()), [8.0; 24]);
}

#[test]
fn adapters_of_every_number_type() {
    let base = base();
    let place = tempfile::tempdir().expect("a folder");
    let path = place.path().join("x.safetensors");
    let name = format!("{LINEAR}.weight");
    let plain = ModelFiles::folder(base.path()).expect("a folder");
    let plain = Checkpoint::open(&plain, "unet", None).expect("whole").weight(&name).expect("there").to_f32();
    for (dtype, half) in [
        (Dtype::F64, 0.5_f64.to_le_bytes().to_vec()),
        (Dtype::F32, 0.5_f32.to_le_bytes().to_vec()),
        (Dtype::F16, vec![0, 0x38]),
        (Dtype::BF16, vec![0, 0x3F]),
        (Dtype::F8_E4M3, vec![0x30]),
        (Dtype::F8_E5M2, vec![0x38]),
    ] {
        let filled = |shape: &[usize]| (dtype, shape.to_vec(), half.repeat(shape.iter().product()));
        let of = |way: &str| format!("unet.{LINEAR}.lora_{way}.weight");
        write(&path, &Tensors::from([(of("A"), filled(&[2, 4])), (of("B"), filled(&[6, 2]))]), None);
        let sum = added(base.path(), &path, 1.0).expect("it fits").weight(&name).expect("there").to_f32();
        assert!(sum.iter().zip(&plain).all(|(a, b)| (a - b - 0.5).abs() < 1e-5), "{dtype:?}");
    }
}
