//! Learned rows come after the vocabulary's rows, in every number type of a checkpoint.

use graph::{StorageType, WeightSource};
use models::{Checkpoint, LearnedWeights, ModelFiles, TextualInversion};
use safetensors::{Dtype, tensor::TensorView};
use std::path::Path;

const EMBEDDING: &str = "text_model.embeddings.token_embedding.weight";

fn write(path: &Path, name: &str, dtype: Dtype, shape: &[usize], bytes: &[u8]) {
    let tensor = TensorView::new(dtype, shape.to_vec(), bytes).expect("bytes of that shape");
    std::fs::write(path, safetensors::serialize([(name, tensor)], None).expect("serializable")).expect("writable");
}

/// Small whole numbers are the same in every type: f32's upper half is bf16.
fn bytes(dtype: Dtype, values: &[f32]) -> Vec<u8> {
    let half = |v: &f32| match *v {
        0.0 => [0, 0],
        1.0 => [0, 0x3c],
        2.0 => [0, 0x40],
        3.0 => [0, 0x42],
        other => panic!("{other} is not in the table"),
    };
    let one = |v: &f32| match dtype {
        Dtype::F16 => half(v).to_vec(),
        Dtype::BF16 => v.to_le_bytes()[2..].to_vec(),
        _ => v.to_le_bytes().to_vec(),
    };
    values.iter().flat_map(one).collect()
}

#[test]
fn rows_are_appended_in_the_checkpoints_type() {
    let place = tempfile::tempdir().expect("a folder");
    let [stored, learned] = [[0.0, 1.0, 2.0, 3.0], [3.0, 2.0, 1.0, 0.0]];
    let file = place.path().join("my-word.safetensors");
    write(&file, "emb_params", Dtype::F32, &[2, 2], &bytes(Dtype::F32, &learned));
    let inversion = TextualInversion::open(&file, None).expect("an inversion");
    assert_eq!(inversion.token(), "my-word");
    let other = TextualInversion::open(&file, Some("<w>")).expect("an inversion");
    assert_eq!(other.token(), "<w>");
    for (dtype, storage) in
        [(Dtype::F32, StorageType::F32), (Dtype::F16, StorageType::F16), (Dtype::BF16, StorageType::F32)]
    {
        write(&place.path().join("model.safetensors"), EMBEDDING, dtype, &[2, 2], &bytes(dtype, &stored));
        let files = ModelFiles::folder(place.path()).expect("a folder");
        let checkpoint = Checkpoint::from_files(&files, "model".into(), &["model.safetensors".into()]);
        let mut weights = LearnedWeights::new(checkpoint.expect("a checkpoint"));
        let name = "embeddings.token_embedding.weight";
        assert_eq!(weights.weight(name).expect("there").to_f32(), stored);
        let all = [inversion.learned("model", &[2, 2]), other.learned("model", &[2])].map(|l| l.expect("it fits"));
        // Of two encoders of the same width, the first gets the vectors.
        assert!(all[0][1].is_none());
        all.iter().for_each(|learned| weights.learn(learned[0].as_ref().expect("the first learns")));
        let view = weights.weight(name).expect("there");
        assert_eq!((view.storage, &*view.shape), (storage, &[6, 2][..]), "{dtype:?}");
        assert_eq!(view.to_f32(), [stored, learned, learned].concat(), "{dtype:?}");
    }
}

/// An inversion's own number type is any that is read.
#[test]
fn inversions_of_other_number_types() {
    let place = tempfile::tempdir().expect("a folder");
    let file = place.path().join("word.safetensors");
    let doubles: Vec<u8> = [0.1_f64, -2.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    for (dtype, bytes, wanted) in [
        (Dtype::F64, &*doubles, [0.1, -2.0]),
        (Dtype::F8_E4M3, &[0x38, 0xC4], [1.0, -3.0]),
        (Dtype::F8_E5M2, &[0x3E, 0xC0], [1.5, -2.0]),
    ] {
        write(&file, "emb_params", dtype, &[1, 2], bytes);
        let inversion = TextualInversion::open(&file, None).unwrap_or_else(|error| panic!("{error}"));
        let learned = inversion.learned("model", &[2]).expect("it fits");
        assert_eq!(learned[0].as_ref().expect("the first learns").values, wanted, "{dtype:?}");
    }
    write(&file, "emb_params", Dtype::I8, &[1, 2], &[1, 2]);
    let error = TextualInversion::open(&file, None).expect_err("quantized").to_string();
    assert!(error.ends_with("has the unsupported number type I8 for emb_params"), "{error}");
}
