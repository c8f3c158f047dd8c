//! What a request asks for that does nothing with its model, or does harm.

use crate::common::{cpu, pipeline, request};
use models::ModelFiles;
use pipelines::{Pipeline, Request, Warning};
use std::path::Path;

fn warnings(pipe: &Pipeline, request: &Request) -> Vec<Warning> {
    pipe.job(request).unwrap().warnings().to_vec()
}

/// The golden says that it draws squares and circles, in red and blue; its pictures have 32x32 pixels.
#[test]
fn what_does_nothing_or_harm_is_told() {
    let pipe = pipeline(&cpu(), "pixels");
    let red = || request("a red square", 2);
    let of_size = |width, height| Request { width: Some(width), height: Some(height), ..red() };
    let far = |made| vec![Warning::FarFromTrained { made, trained: [32, 32] }];
    let (interval, unguided) = (Some("0.2,3".parse().unwrap()), Some(1.0));
    let unknown = |words: &[&str]| vec![Warning::UnknownWords(words.iter().map(|word| (*word).to_owned()).collect())];
    for (request, wanted) in [
        (red(), vec![]),
        (request(" ", 2), vec![Warning::EmptyPrompt]),
        (request("BLUE squares, landscape", 2), unknown(&["landscape"])),
        (Request { negative_prompt: Some("ugly".into()), ..red() }, vec![]),
        (
            Request { negative_prompt: Some("ugly".into()), guidance_scale: unguided, ..red() },
            vec![Warning::NegativePromptUnread],
        ),
        (Request { guidance_interval: interval, ..red() }, vec![]),
        (Request { guidance_interval: interval, guidance_scale: unguided, ..red() }, vec![Warning::IntervalUnread]),
        (Request { guidance_scale: Some(30.0), ..red() }, vec![]),
        (of_size(32, 40), vec![]),
        (of_size(64, 64), far([64, 64])),
        (of_size(16, 16), far([16, 16])),
    ] {
        assert_eq!(warnings(&pipe, &request), wanted, "{request:?}");
    }
    // Models that do not say what they draw, and sizes between those that networks of latents are used at.
    let pipe = pipeline(&cpu(), "stable_diffusion");
    assert_eq!(warnings(&pipe, &request("a landscape", 2)), []);
    let own = pipe.defaults();
    let double = |side: Option<usize>| side.map(|side| 2 * side);
    let large = Request { width: double(own.width), height: double(own.height), ..request("a cat", 2) };
    assert_eq!(warnings(&pipe, &large), []);
    let long = request(&"heart ".repeat(200), 2);
    let cut = Request { prompt_syntax: Some("plain".parse().unwrap()), ..long.clone() };
    assert_eq!(warnings(&pipe, &long), []);
    assert!(matches!(warnings(&pipe, &cut)[..], [Warning::TokensDropped(count)] if count > 100));
}

/// A model whose files say that it wants no guidance has learnt it.
#[test]
fn guidance_is_not_added_to_what_a_model_was_distilled_with() {
    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap().flatten() {
            let target = to.join(entry.file_name());
            if entry.path().is_dir() { copy(&entry.path(), &target) } else { drop(std::fs::copy(entry.path(), target)) }
        }
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens/pipelines/pixels");
    let folder = std::env::temp_dir().join(format!("headwater-distilled-{}", std::process::id()));
    copy(&golden, &folder);
    let index = std::fs::read_to_string(folder.join("model_index.json")).unwrap();
    let index = index.replacen('{', r#"{ "headwater": { "guidance_scale": 1.0 },"#, 1);
    std::fs::write(folder.join("model_index.json"), index).unwrap();
    let files = ModelFiles::folder(&folder).unwrap();
    let pipe = Pipeline::from_pretrained(&cpu(), &files, Default::default()).unwrap();
    let told = |scale| warnings(&pipe, &Request { guidance_scale: scale, ..request("a red square", 2) });
    assert_eq!((told(None), told(Some(1.0))), (vec![], vec![]));
    assert_eq!(told(Some(7.5)), [Warning::GuidedTwice { scale: 7.5 }]);
    std::fs::remove_dir_all(folder).unwrap();
}
