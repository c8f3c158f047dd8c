//! What is done to a picture that exists: enlarging it, and reading what it says.

use super::super::super::fields::IMAGE;
use super::super::super::order::Asked;
use super::super::super::sent::{Sent, from_base64};
use super::super::super::ticket::Owner;
use super::super::body;
use super::super::error::ApiError;
use super::super::lease::Lease;
use super::{Answer, Shared};
use crate::cli::picture_file;
use crate::cli::pictures::Pictures as _;
use axum::Json;
use axum::extract::{Extension, Request, State};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use std::path::Path;

/// The upscaler that a served model is.
const OURS: &str = "headwater";

pub(super) fn upscalers() -> Value {
    let one = |name: &str, scale: f64| json!({ "name": name, "model_name": null, "model_path": null, "model_url": null, "scale": scale });
    json!([one("None", 1.0), one(OURS, 2.0)])
}

/// Fields that say nothing without another that is refused.
const HARMLESS: [&str; 5] =
    ["show_extras_results", "upscale_first", "upscaling_crop", "codeformer_weight", "extras_upscaler_2_visibility"];

/// `extra-single-image`: a picture, enlarged.
pub(super) async fn single(State(app): Shared, Extension(owner): Extension<Owner>, request: Request) -> Answer {
    let mut fields = body::object(&app, request).await?;
    let image = picture(&mut fields)?;
    let mut asked = Asked::new("upscale", app.limits.pixels);
    let number = |name: &str, value: Option<Value>| match value {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_f64().map(Some).ok_or_else(|| ApiError::field(name, "must be a number")),
    };
    let mode = number("resize_mode", fields.remove("resize_mode"))?.unwrap_or(0.0);
    let scale = number("upscaling_resize", fields.remove("upscaling_resize"))?.unwrap_or(2.0);
    let width = number("upscaling_resize_w", fields.remove("upscaling_resize_w"))?;
    let height = number("upscaling_resize_h", fields.remove("upscaling_resize_h"))?;
    for name in ["gfpgan_visibility", "codeformer_visibility"] {
        if number(name, fields.remove(name))?.is_some_and(|share| share != 0.0) {
            return Err(ApiError::field(name, "asks for something that is not done here: leave it out").into());
        }
    }
    let mut upscaler = |name: &str| match fields.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(own)) if own == "None" => Ok(None),
        Some(Value::String(own)) if own == OURS => Ok(Some(())),
        Some(_) => Err(ApiError::field(name, &format!("must be None or {OURS}"))),
    };
    let (first, second) = (upscaler("upscaler_1")?, upscaler("upscaler_2")?);
    if second.is_some() {
        return Err(ApiError::field("upscaler_2", "must be None: there is one upscaler here").into());
    }
    HARMLESS.iter().for_each(|name| drop(fields.remove(*name)));
    if let Some((name, _)) = fields.iter().find(|(_, value)| !value.is_null()) {
        return Err(ApiError::field(name, "is no field that is known here").into());
    }
    let mut sent = Sent::new(app.limits.pixels);
    sent.put(IMAGE, image.clone());
    if first.is_none() {
        // Without an upscaler nothing is done; the picture must be one all the same.
        checked(sent).await?;
        return Ok(Json(json!({ "html_info": "", "image": STANDARD.encode(image) })));
    }
    asked.sent = sent;
    asked.model = app.chosen(&owner).map(|index| app.models.id(index).to_owned());
    if mode == 0.0 {
        asked.fields.insert("scale".into(), json!(scale));
    } else if mode == 1.0 {
        let side = |name: &str, value: Option<f64>| value.ok_or_else(|| ApiError::field(name, "is missing"));
        let whole = |value: f64| json!(value.round().clamp(0.0, 1e9) as u64);
        let (width, height) = (side("upscaling_resize_w", width)?, side("upscaling_resize_h", height)?);
        // Models that were not trained to enlarge know whole numbers of times only.
        match times(&image, width, height) {
            Some(scale) => drop(asked.fields.insert("scale".into(), json!(scale))),
            None => {
                asked.fields.insert("width".into(), whole(width));
                asked.fields.insert("height".into(), whole(height));
            }
        }
    } else {
        return Err(ApiError::field("resize_mode", "must be 0 or 1").into());
    }
    let names = [("scale", "upscaling_resize"), ("width", "upscaling_resize_w"), ("height", "upscaling_resize_h")];
    let lease = Lease::of(&app, asked, owner).await.map_err(|error| error.renamed(&names))?;
    let made = lease.pictures().await?;
    let image = made.first().map(|made| STANDARD.encode(&made.bytes)).unwrap_or_default();
    Ok(Json(json!({ "html_info": "", "image": image })))
}

/// How many times as large as the picture this size is, where that is a whole number of times.
fn times(image: &[u8], width: f64, height: f64) -> Option<f64> {
    let reader = image::ImageReader::new(std::io::Cursor::new(image)).with_guessed_format().ok()?;
    let (own_width, own_height) = reader.into_dimensions().ok()?;
    let scale = width / f64::from(own_width);
    (scale >= 1.0 && scale.fract() == 0.0 && scale == height / f64::from(own_height)).then_some(scale)
}

/// Decodes a picture to see that it is one.
async fn checked(sent: Sent) -> Result<(), ApiError> {
    let read = tokio::task::spawn_blocking(move || sent.read(Path::new(IMAGE)).map(drop));
    let read = read.await.unwrap_or(Ok(()));
    Ok(read.map_err(super::super::super::super::error::CliError::from)?)
}

fn picture(fields: &mut Map<String, Value>) -> Result<Vec<u8>, ApiError> {
    match fields.remove("image") {
        Some(Value::String(text)) => from_base64("image", &text),
        _ => Err(ApiError::field("image", "must be a picture in base64")),
    }
}

/// `png-info`: what a picture says of how it was made.
pub(super) async fn png_info(State(app): Shared, request: Request) -> Answer {
    let mut fields = body::object(&app, request).await?;
    let bytes = picture(&mut fields)?;
    let most_pixels = app.limits.pixels as u64;
    let read = tokio::task::spawn_blocking(move || picture_file::read_info_of(&bytes, most_pixels));
    let read = read.await.map_err(|_| ApiError::field("image", "cannot be read"))?;
    let info = read.map_err(ApiError::from)?;
    let items: Map<String, Value> = info.texts.iter().map(|(keyword, text)| (keyword.clone(), json!(text))).collect();
    let parameters = items.get("parameters").and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok(Json(json!({ "info": parameters, "items": items, "parameters": {} })))
}
