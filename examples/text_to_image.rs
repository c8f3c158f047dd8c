//! Makes a picture with the library and watches it form: `cargo run --release --example text_to_image -- "a red heart"`.

use headwater::{DeviceChoice, DeviceSettings, Pipeline, PlanOptions, Request, SavePicture};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let prompt = std::env::args().nth(1).unwrap_or_else(|| "a red heart".to_owned());
    let device = headwater::open_device(&DeviceChoice::Auto, &DeviceSettings::default())?;
    let files = headwater::bundled::find(headwater::bundled::DEFAULT).ok_or("no model is bundled")?.files();
    let pipe = Pipeline::from_pretrained(&device, &files, PlanOptions::default())?;

    let job = pipe.job(&Request { prompt, seed: 7, ..Request::default() })?;
    let mut run = pipe.start(&job)?;
    while let Some(step) = run.next()? {
        let mean = step.denoised.iter().sum::<f32>() / step.denoised.len() as f32;
        println!("step {:2}/{}  sigma {:8.3}  mean of denoised {mean:+.3}", step.index + 1, step.steps, step.sigma);
    }

    let generated = run.finish()?;
    let image = generated.image.ok_or("the bundled model makes pictures")?;
    image.save("example.png")?;
    println!("example.png, made on {} in {:.2?}", device.info().name, generated.timings.sample);
    Ok(())
}
