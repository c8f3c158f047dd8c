//! OpenAI's and AUTOMATIC1111's APIs, in their own words. `clients.rs` tries them with clients that others wrote.

use super::support::{Server, base64, from_base64, pixels};
use serde_json::{Value, json};

/// A form with files, as OpenAI's client sends one.
fn form(parts: &[(&str, Option<&str>, &[u8])]) -> (String, Vec<u8>) {
    let mut body = Vec::new();
    for (name, file, bytes) in parts {
        let file = file.map_or(String::new(), |file| format!("; filename=\"{file}\""));
        body.extend_from_slice(
            format!("--edge\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n").as_bytes(),
        );
        body.extend_from_slice(bytes);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--edge--\r\n");
    ("multipart/form-data; boundary=edge".into(), body)
}

/// A file of a form.
fn file<'a>(name: &'a str, bytes: &'a [u8]) -> (&'a str, Option<&'a str>, &'a [u8]) {
    (name, Some("a.png"), bytes)
}

/// A picture whose left half is transparent.
fn half_transparent() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 64, 64);
    encoder.set_color(png::ColorType::Rgba);
    let pixels: Vec<u8> = (0..64 * 64).flat_map(|at| [90, 160, 30, if at % 64 < 32 { 0 } else { 255 }]).collect();
    encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
    bytes
}

#[test]
fn openai_generations() {
    let server = Server::start(&[]);
    let own = server.make(&json!({ "prompt": "a red heart", "seed": 7, "steps": 2, "count": 2 }));
    let asked = json!({ "prompt": "a red heart", "n": 2, "size": "64x64", "seed": 7, "steps": 2, "quality": "high", "user": "me" });
    let answer = server.post("/v1/images/generations", &asked).json();
    let files: Vec<Vec<u8>> =
        answer["data"].as_array().unwrap().iter().map(|one| from_base64(one["b64_json"].as_str().unwrap())).collect();
    assert!(files == own, "the same as by the own API");
    assert_eq!(answer["size"], "64x64");

    let url = server
        .post(
            "/v1/images/generations",
            &json!({ "prompt": "a red heart", "seed": 7, "steps": 2, "response_format": "url" }),
        )
        .json();
    let url = url["data"][0]["url"].as_str().unwrap().to_owned();
    let path = url.strip_prefix(&format!("http://{}", server.address)).unwrap();
    assert!(server.get(path).body == own[0], "{url}");

    for (format, first) in [("jpeg", &[0xff, 0xd8][..]), ("webp", b"RIFF"), ("png", b"\x89PNG")] {
        let asked = json!({ "prompt": "a red heart", "output_format": format, "output_compression": 80 });
        let answer = server.post("/v1/images/generations", &asked).json();
        assert!(from_base64(answer["data"][0]["b64_json"].as_str().unwrap()).starts_with(first), "{format}");
    }

    let asked = json!({ "prompt": "a red heart", "seed": 7, "steps": 4, "stream": true, "partial_images": 2 });
    let events = server.post("/v1/images/generations", &asked).events();
    let names: Vec<&str> = events.iter().map(|(name, ..)| name.as_str()).collect();
    assert_eq!(
        names,
        ["image_generation.partial_image", "image_generation.partial_image", "image_generation.completed"]
    );
    assert_eq!(events[1].2["partial_image_index"], 1);
    assert!(events.iter().all(|(name, _, data)| data["type"] == *name && data["b64_json"].is_string()));
    let alone = server.make(&json!({ "prompt": "a red heart", "seed": 7, "steps": 4 }));
    assert!(from_base64(events[2].2["b64_json"].as_str().unwrap()) == alone[0]);

    for (asked, status, param) in [
        (json!({ "prompt": "a", "size": "large" }), 422, "size"),
        (json!({ "prompt": "a", "size": "999999x8" }), 422, "size"),
        (json!({ "prompt": "a", "n": 0 }), 422, "n"),
        (json!({ "prompt": "a", "n": 1000 }), 422, "n"),
        (json!({ "prompt": "a", "model": "dall-e-3" }), 404, "model"),
        (json!({ "prompt": "a", "background": "transparent" }), 422, "background"),
        (json!({ "prompt": "a", "style": "vivid" }), 422, "style"),
        (json!({ "prompt": "a", "stepps": 3 }), 422, "stepps"),
        (json!({ "prompt": ["a"] }), 422, "prompt"),
    ] {
        let response = server.post("/v1/images/generations", &asked);
        assert_eq!(
            (response.status, &response.json()["error"]["param"]),
            (status, &json!(param)),
            "{asked}: {}",
            response.text()
        );
    }
    assert_eq!(server.post("/v1/images/variations", &Value::Null).status, 400);
    let models = server.get("/v1/models").json();
    assert_eq!(models["data"][0]["id"], "icons-64-consistency");
    assert_eq!(server.get("/v1/models/icons-64").json()["id"], "icons-64");
    assert_eq!(server.get("/v1/models/none").status, 404);
}

#[test]
fn openai_edits_what_is_transparent() {
    let server = Server::start(&[]);
    let picture = server.make(&json!({ "prompt": "a red heart", "seed": 7 })).remove(0);
    let mask = half_transparent();
    let ask = |parts: &[(&str, Option<&str>, &[u8])]| {
        let (kind, body) = form(
            &[&[("prompt", None, &b"a blue fish"[..]), ("model", None, b"icons-64"), ("steps", None, b"3")], parts]
                .concat(),
        );
        server.send("POST", "/v1/images/edits", &[("Content-Type", &kind)], &body)
    };
    let edited = ask(&[file("image", &picture), file("mask", &mask)]).json();
    let (before, after) = (pixels(&picture), pixels(&from_base64(edited["data"][0]["b64_json"].as_str().unwrap())));
    let differs = |at: usize| before.pixels[3 * at..3 * at + 3] != after.pixels[3 * at..3 * at + 3];
    assert!((0..64 * 64).all(|at| at % 64 < 32 || !differs(at)), "what is opaque is kept to the bit");
    assert!((0..64 * 64).any(|at| at % 64 < 32 && differs(at)), "what is transparent is made anew");
    // Without a mask, and by the name of a list.
    assert_eq!(ask(&[file("image[]", &picture)]).status, 200);
    for (parts, status) in [
        (&[][..], 422),
        (&[file("image", &picture), file("image", &picture)], 422),
        (&[file("image", b"no picture")], 422),
        (&[file("image", &picture), file("mask", b"")], 422),
        (&[file("image", &picture), ("n", None, b"\xff")], 422),
    ] {
        let response = ask(parts);
        assert_eq!(response.status, status, "{}", response.text());
    }
    let broken = server.send(
        "POST",
        "/v1/images/edits",
        &[("Content-Type", "multipart/form-data; boundary=edge")],
        b"--edge\r\nhalf",
    );
    assert_eq!(broken.status, 400, "{}", broken.text());
}

#[test]
fn a1111_makes_pictures_of_words_and_pictures() {
    let server = Server::start(&[]);
    let own =
        server.make(&json!({ "prompt": "a red heart", "seed": 7, "steps": 2, "sampler": "euler_a", "guidance": 2 }));
    let asked = json!({
        "prompt": "a red heart", "seed": 7, "steps": 2, "sampler_name": "Euler a", "sampler_index": "Euler", "scheduler": "automatic", "cfg_scale": 2,
        "width": 64, "height": 64, "eta": null, "enable_hr": false, "tiling": false, "styles": [], "alwayson_scripts": {}, "subseed": -1,
        "subseed_strength": 0, "s_noise": 1.0, "denoising_strength": 0.7, "send_images": true, "save_images": false, "script_name": null,
    });
    // Of text to image a strength says nothing, as long as nothing is enlarged.
    let answer = server.post("/sdapi/v1/txt2img", &asked).json();
    let file = from_base64(answer["images"][0].as_str().unwrap());
    assert!(pixels(&file) == pixels(&own[0]));
    let info: Value = serde_json::from_str(answer["info"].as_str().unwrap()).unwrap();
    assert_eq!((&info["seed"], &info["width"], &info["all_seeds"]), (&json!(7), &json!(64), &json!([7])));
    assert_eq!(answer["parameters"]["steps"], 2);
    let told = server
        .post("/sdapi/v1/png-info", &json!({ "image": format!("data:image/png;base64,{}", base64(&file)) }))
        .json();
    assert_eq!(told["info"], info["infotexts"][0]);
    assert!(told["items"]["headwater"].as_str().unwrap().contains("red heart"));

    // White is made anew, and what lies under it is filled from around it first.
    let mut mask = Vec::new();
    let mut encoder = png::Encoder::new(&mut mask, 64, 64);
    encoder.set_color(png::ColorType::Grayscale);
    let white: Vec<u8> = (0..64 * 64).map(|at| if at % 64 < 32 { 255 } else { 0 }).collect();
    encoder.write_header().unwrap().write_image_data(&white).unwrap();
    for (inverted, fill) in [(0, 0), (0, 1), (1, 0)] {
        let asked = json!({
            "init_images": [base64(&file)], "mask": base64(&mask), "prompt": "a blue fish", "denoising_strength": 0.75, "steps": 3, "mask_blur": 4,
            "inpainting_fill": fill, "inpaint_full_res": true, "inpaint_full_res_padding": 0, "inpainting_mask_invert": inverted,
            "width": 64, "height": 64, "override_settings": { "sd_model_checkpoint": "icons-64" },
        });
        let response = server.post("/sdapi/v1/img2img", &asked);
        assert_eq!(response.status, 200, "{}", response.text());
        let after = pixels(&from_base64(response.json()["images"][0].as_str().unwrap()));
        let before = pixels(&file);
        let kept = |at: usize| (at % 64 < 32) == (inverted == 1);
        assert!(
            (0..64 * 64).all(|at| !kept(at) || before.pixels[3 * at..3 * at + 3] == after.pixels[3 * at..3 * at + 3])
        );
    }
    let larger = server.post(
        "/sdapi/v1/extra-single-image",
        &json!({ "image": base64(&file), "upscaler_1": "headwater", "upscaling_resize": 2 }),
    );
    assert_eq!(pixels(&from_base64(larger.json()["image"].as_str().unwrap())).width, 128);

    for (path, asked, status, part) in [
        ("txt2img", json!({ "prompt": "a", "sampler_name": "no such" }), 400, "sampler_name"),
        ("txt2img", json!({ "prompt": "a", "scheduler": "no such" }), 400, "scheduler"),
        ("txt2img", json!({ "prompt": "a", "enable_hr": true }), 422, "enable_hr"),
        ("txt2img", json!({ "prompt": "a", "styles": ["b"] }), 422, "styles"),
        ("txt2img", json!({ "prompt": "a", "alwayson_scripts": { "ControlNet": {} } }), 422, "ControlNet"),
        ("txt2img", json!({ "prompt": "a", "cfg_scale": "NaN" }), 422, "guidance"),
        ("txt2img", json!({ "prompt": "a", "unheard_of": 1 }), 422, "unheard_of"),
        ("txt2img", json!({ "prompt": "a", "override_settings": { "sd_model_checkpoint": "none" } }), 404, "none"),
        ("img2img", json!({ "prompt": "a" }), 422, "init_images"),
        ("img2img", json!({ "prompt": "a", "init_images": ["!"] }), 422, "init_images"),
        ("extra-single-image", json!({ "image": base64(&file), "upscaler_1": "ESRGAN" }), 422, "upscaler_1"),
        ("png-info", json!({ "image": "AAAA" }), 422, "picture"),
    ] {
        let response = server.post(&format!("/sdapi/v1/{path}"), &asked);
        assert_eq!(response.status, status, "{asked}: {}", response.text());
        assert!(response.json()["detail"].as_str().unwrap().contains(part), "{asked}: {}", response.text());
    }
}

#[test]
fn a1111_tells_how_far_it_is_and_stops() {
    let server = Server::start(&[]);
    let idle = server.get("/sdapi/v1/progress").json();
    assert_eq!((&idle["progress"], &idle["state"]["job_count"]), (&json!(0.0), &json!(0)));
    let asked = json!({
        "prompt": "a fish", "steps": 1000, "force_task_id": "task(abc)", "override_settings": { "sd_model_checkpoint": "icons-64" },
    });
    let waiting = server.begin(
        "POST",
        "/sdapi/v1/txt2img",
        &[("Content-Type", "application/json")],
        asked.to_string().as_bytes(),
    );
    let told = loop {
        let told = server.get("/sdapi/v1/progress").json();
        if told["current_image"].is_string() {
            break told;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    };
    assert_eq!((&told["state"]["sampling_steps"], &told["state"]["job_count"]), (&json!(1000), &json!(1)));
    assert_eq!(pixels(&from_base64(told["current_image"].as_str().unwrap())).width, 64);
    let of_task = server.post("/internal/progress", &json!({ "id_task": "task(abc)", "id_live_preview": -1 })).json();
    assert_eq!((&of_task["active"], &of_task["queued"]), (&json!(true), &json!(false)));
    assert!(of_task["live_preview"].as_str().unwrap().starts_with("data:image/jpeg"));
    assert_eq!(server.post("/internal/progress", &json!({ "id_task": "other" })).json()["active"], false);
    // Somebody else's request to stop is not about this job.
    server.send("POST", "/sdapi/v1/interrupt", &[("X-Headwater-Client", "other")], b"");
    assert_eq!(server.get("/sdapi/v1/progress").json()["state"]["job_count"], 1);
    server.send("POST", "/sdapi/v1/interrupt", &[], b"");
    let answer = super::support::Response::read(waiting);
    assert_eq!((answer.status, &answer.json()["images"]), (200, &json!([])));
}

#[test]
fn a1111_options_are_sent_back_whole() {
    let server = Server::start(&[]);
    let mut options = server.get("/sdapi/v1/options").json();
    assert_eq!(options["sd_model_checkpoint"], "icons-64-consistency");
    options["sd_model_checkpoint"] = json!("icons-64");
    assert_eq!(server.post("/sdapi/v1/options", &options).status, 200);
    assert_eq!(server.get("/sdapi/v1/options").json()["sd_model_checkpoint"], "icons-64");
    let answer = server.post("/sdapi/v1/txt2img", &json!({ "prompt": "a red heart", "steps": 1 })).json();
    assert!(answer["info"].as_str().unwrap().contains("\"sd_model_name\":\"icons-64\""));
    for (name, value, status) in
        [("sd_model_checkpoint", json!("none"), 404), ("samples_format", json!("gif"), 422), ("no_such", json!(1), 422)]
    {
        assert_eq!(server.post("/sdapi/v1/options", &json!({ name: value })).status, status, "{name}");
    }
    for list in ["samplers", "schedulers", "sd-models", "upscalers", "loras", "sd-vae", "prompt-styles", "script-info"]
    {
        assert!(server.get(&format!("/sdapi/v1/{list}")).json().is_array(), "{list}");
    }
    // Every name in the lists is one that is taken.
    let names = |list: &str| -> Vec<String> {
        let list = server.get(&format!("/sdapi/v1/{list}")).json();
        list.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    for name in names("samplers") {
        assert!(name.parse::<headwater::NamedSampler>().is_ok(), "{name}");
    }
    for name in names("schedulers").into_iter().filter(|name| name != "automatic") {
        assert!(name.parse::<headwater::NamedSchedule>().is_ok(), "{name}");
    }
}
