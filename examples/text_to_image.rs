//! Makes a picture with the library and watches it form: `cargo run --release --example text_to_image -- "a red heart"`.

use headwater::{DeviceChoice, DeviceSettings, Outcomes, PlanOptions, Request, TextToImage};
use std::ops::ControlFlow;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let prompt = std::env::args().nth(1).unwrap_or_else(|| "a red heart".to_owned());
    let device = headwater::open_device(&DeviceChoice::Auto, &DeviceSettings::default())?;
    let files = headwater::bundled::find(headwater::bundled::DEFAULT).ok_or("no model is bundled")?.files();
    let mut pipe = TextToImage::from_pretrained(device.as_ref(), &files, PlanOptions::default())?;

    let request = Request { prompt, seed: 7, ..pipe.defaults() };
    let outcome = pipe.run(&request, |event| {
        let mean = event.denoised.iter().sum::<f32>() / event.denoised.len() as f32;
        println!("step {:2}/{}  sigma {:8.3}  mean of denoised {mean:+.3}", event.index + 1, event.steps, event.sigma);
        ControlFlow::Continue(())
    })?;

    if let Outcomes::Finished(generated) = outcome {
        let image = generated.image.ok_or("the bundled model works in pixel space")?;
        let file = std::fs::File::create("example.png")?;
        let mut encoder = png::Encoder::new(file, u32::try_from(image.width)?, u32::try_from(image.height)?);
        encoder.set_color(png::ColorType::Rgb);
        encoder.write_header()?.write_image_data(&image.pixels)?;
        println!("example.png, made on {} in {:.2?}", device.info().name, generated.timings.sample);
    }
    Ok(())
}
