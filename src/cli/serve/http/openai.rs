//! OpenAI's Images API: `/v1/images/generations`, `/v1/images/edits`, `/v1/models`.
//!
//! Fields that OpenAI does not know are the own API's, by their names: `seed`, `steps`, `sampler`, …

use super::super::App;
use super::super::fields::{IMAGE, MASK};
use super::super::order::{self, Asked};
use super::super::ticket::{Made, Owner, Previews, Ticket};
use super::error::{ApiError, Dialect};
use super::events::{self, Told};
use super::guard::Host;
use super::lease::{self, Lease};
use super::{body, jobs};
use axum::extract::{Extension, Path, Request, State};
use axum::http::{HeaderValue, StatusCode};
use axum::response::sse::Event as Sent;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::stream::{self, StreamExt as _};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

type Shared = State<Arc<App>>;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/models", get(models))
        .route("/v1/models/{*id}", get(model))
        .route("/v1/images/generations", post(generations))
        .route("/v1/images/edits", post(edits))
        .route(
            "/v1/images/variations",
            post(async |request: Request| {
                body::ignored(request).await;
                let message =
                    "variations were withdrawn by OpenAI and are not made here: send the picture to /v1/images/edits";
                ApiError::new(StatusCode::BAD_REQUEST, "unsupported", message)
            }),
        )
}

fn model_json(id: &str) -> Value {
    json!({ "id": id, "object": "model", "created": 0, "owned_by": "headwater" })
}

async fn models(State(app): Shared) -> Json<Value> {
    let list: Vec<Value> = app.models.all().iter().map(|model| model_json(&model.id)).collect();
    Json(json!({ "object": "list", "data": list }))
}

async fn model(State(app): Shared, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    match app.models.find(&id) {
        Some(index) => Ok(Json(model_json(app.models.id(index)))),
        None => Err(ApiError::unknown_model("is not served here")),
    }
}

/// Fields that say how good a picture should be, who wants it, or what it may not show: they do not change what is asked of a model here.
const HARMLESS: [&str; 4] = ["quality", "moderation", "user", "input_fidelity"];

/// What a request says of its answer.
#[derive(Debug)]
struct Answer {
    /// Addresses in place of the pictures themselves.
    urls: bool,
    streams: bool,
    partial: u64,
}

/// Reads the fields, which a form has as text.
fn read(app: &App, owner: &Owner, mut fields: Map<String, Value>, asked: &mut Asked) -> Result<Answer, ApiError> {
    let mut take = |name: &str| fields.remove(name).filter(|value| !value.is_null());
    let text = |name: &str, value: Option<Value>| match value {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(ApiError::field(name, "must be a text")),
    };
    let number = |name: &str, value: Option<Value>, most: u64| match value {
        None => Ok(None),
        Some(value) => {
            let number = value.as_u64().or_else(|| value.as_str()?.parse().ok()).filter(|number| *number <= most);
            number.map(Some).ok_or_else(|| ApiError::field(name, &format!("must be a whole number up to {most}")))
        }
    };
    asked.prompt = text("prompt", take("prompt"))?;
    asked.model =
        text("model", take("model"))?.or_else(|| app.chosen(owner).map(|index| app.models.id(index).to_owned()));
    let count = number("n", take("n"), u64::from(app.limits.images))?;
    if count == Some(0) {
        return Err(ApiError::field("n", "must be 1 at least"));
    }
    let size = text("size", take("size"))?;
    let background = text("background", take("background"))?;
    if background.is_some_and(|name| name == "transparent") {
        return Err(ApiError::field("background", "cannot be transparent: pictures are opaque here"));
    }
    if let Some(name) = text("output_format", take("output_format"))? {
        asked.format = order::format(&name).map_err(|error| error.renamed(&[("format", "output_format")]))?;
    }
    if let Some(percent) = number("output_compression", take("output_compression"), 100)? {
        asked.quality = u8::try_from(percent.max(1)).unwrap_or(100);
    }
    let urls = match text("response_format", take("response_format"))?.as_deref() {
        None | Some("b64_json") => false,
        Some("url") => true,
        Some(_) => return Err(ApiError::field("response_format", "must be b64_json or url")),
    };
    let streams = match take("stream") {
        None | Some(Value::Bool(false)) => false,
        Some(Value::Bool(true)) => true,
        Some(Value::String(text)) if text == "true" => true,
        Some(Value::String(text)) if text == "false" => false,
        Some(_) => return Err(ApiError::field("stream", "must be true or false")),
    };
    let partial = number("partial_images", take("partial_images"), 3)?.unwrap_or(0);
    if partial > 0 && streams {
        asked.previews = Previews::Denoised;
    }
    HARMLESS.iter().for_each(|name| drop(take(name)));
    fields.retain(|_, value| !value.is_null());
    for own in ["count", "width", "height"] {
        if fields.contains_key(own) {
            return Err(ApiError::field(own, "is no field here: n and size say that"));
        }
    }
    asked.fields = fields;
    if let Some(count) = count {
        asked.fields.insert("count".into(), json!(count));
    }
    if let Some(size) = size.filter(|size| size != "auto") {
        let sides = size.split_once('x').and_then(|(w, h)| Some((w.parse::<u32>().ok()?, h.parse::<u32>().ok()?)));
        let (width, height) = sides.ok_or_else(|| ApiError::field("size", "must be auto, or WIDTHxHEIGHT as 64x64"))?;
        asked.fields.insert("width".into(), json!(width));
        asked.fields.insert("height".into(), json!(height));
    }
    Ok(Answer { urls, streams, partial })
}

/// As OpenAI calls our fields.
const NAMES: [(&str, &str); 3] = [("count", "n"), ("width", "size"), ("height", "size")];

async fn generations(
    State(app): Shared,
    Extension(owner): Extension<Owner>,
    Extension(host): Extension<Host>,
    request: Request,
) -> Result<Response, ApiError> {
    let fields = body::object(&app, request).await?;
    let mut asked = Asked::new("generate", app.limits.pixels);
    let answer = read(&app, &owner, fields, &mut asked)?;
    run(app, asked, owner, &host, answer, "image_generation").await
}

async fn edits(
    State(app): Shared,
    Extension(owner): Extension<Owner>,
    Extension(host): Extension<Host>,
    request: Request,
) -> Result<Response, ApiError> {
    let mut asked = Asked::new("img2img", app.limits.pixels);
    let mut fields = Map::new();
    for part in body::form(&app, request).await? {
        match part.name.as_str() {
            "image" | "image[]" if asked.sent.has(IMAGE) => {
                return Err(ApiError::field("image", "is given several times, and one picture is edited here"));
            }
            "image" | "image[]" => asked.sent.put(IMAGE, part.bytes.to_vec()),
            "mask" => {
                asked.sent.put(MASK, part.bytes.to_vec());
                // Here what is transparent is made anew, and not what is white.
                asked.sent.alpha_masks = true;
                asked.command = "inpaint".into();
            }
            _ => {
                fields.insert(part.name.clone(), Value::String(part.text()?));
            }
        }
    }
    let answer = read(&app, &owner, fields, &mut asked)?;
    run(app, asked, owner, &host, answer, "image_edit").await
}

async fn run(
    app: Arc<App>,
    asked: Asked,
    owner: Owner,
    host: &Host,
    answer: Answer,
    kind: &'static str,
) -> Result<Response, ApiError> {
    let lease = Lease::of(&app, asked, owner).await.map_err(|error| error.renamed(&NAMES))?;
    if answer.streams {
        return Ok(streamed(app, lease, answer.partial, kind));
    }
    let pictures = match lease.pictures().await {
        Ok(pictures) => pictures,
        Err(error) => {
            let is_ours = error.code == "failed";
            let mut response = error.response(Dialect::OpenAi);
            if is_ours {
                // What failed once fails again: clients try again without this.
                response.headers_mut().insert("x-should-retry", HeaderValue::from_static("false"));
            }
            return Ok(response);
        }
    };
    let data: Vec<Value> = if answer.urls {
        let ticket = lease.keep();
        let url = |index: usize| format!("http://{}{}", host.0, ticket.image_url(u32::try_from(index).unwrap_or(0)));
        (0..pictures.len()).map(|index| json!({ "url": url(index) })).collect()
    } else {
        pictures.iter().map(|made| json!({ "b64_json": STANDARD.encode(&made.bytes) })).collect()
    };
    let mut object = json!({ "created": now(), "data": data, "background": "opaque" });
    if let Some(first) = pictures.first() {
        object["size"] = json!(format!("{}x{}", first.width, first.height));
    }
    Ok(Json(object).into_response())
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Some steps on the way, and the pictures, as they come.
fn streamed(app: Arc<App>, lease: Lease, partial: u64, kind: &'static str) -> Response {
    let ticket: Arc<Ticket> = Arc::clone(&lease);
    let told = events::all(Arc::clone(&app), Arc::clone(&ticket), 0);
    let format = jobs::media(ticket.order.format).trim_start_matches("image/");
    let steps = ticket.first.steps();
    let mut sent = 0;
    let own = told.flat_map(move |told| {
        // The job lives as long as somebody reads this.
        let ticket: &Ticket = &lease;
        let event = |name: &str, mut data: Value| {
            let name = format!("{kind}.{name}");
            data["type"] = json!(name);
            data["created_at"] = json!(now());
            data["background"] = json!("opaque");
            // Those of steps are previews, which are JPEG.
            data["output_format"] = json!(if name.ends_with("partial_image") { "jpeg" } else { format });
            data["quality"] = json!("auto");
            vec![Sent::default().event(name).data(data.to_string())]
        };
        let events = match told {
            Told::Event(_, told) => match told.name {
                "step" => partial_image(&told.data, steps, partial, &mut sent)
                    .map_or(Vec::new(), |data| event("partial_image", data)),
                "image" => {
                    let index = serde_json::from_str::<Value>(&told.data).ok().and_then(|told| told["index"].as_u64());
                    let made = ticket.made();
                    match index.and_then(|index| made.get(usize::try_from(index).ok()?).cloned().flatten()) {
                        Some(made) => event("completed", completed(&made)),
                        None => Vec::new(),
                    }
                }
                "failed" | "cancelled" => {
                    let error = lease::ended(&app, ticket).body(Dialect::OpenAi);
                    vec![Sent::default().event("error").data(error.to_string())]
                }
                _ => Vec::new(),
            },
            Told::Position(_) => Vec::new(),
        };
        stream::iter(events)
    });
    events::response(own)
}

/// The picture of a step, of as many as are wanted, evenly over the first image's steps, and never the last, which is the image itself.
fn partial_image(told: &str, steps: Option<usize>, wanted: u64, sent: &mut u64) -> Option<Value> {
    let told: Value = serde_json::from_str(told).ok()?;
    let data = told["preview"].as_str()?.split_once(',')?.1;
    let (step, steps) = (told["step"].as_u64()? + 1, steps? as u64);
    let is_due = *sent < wanted && told["image"] == 0 && step < steps && step * (wanted + 1) >= (*sent + 1) * steps;
    if !is_due {
        return None;
    }
    *sent += 1;
    Some(json!({ "b64_json": data, "partial_image_index": *sent - 1, "size": "auto" }))
}

fn completed(made: &Made) -> Value {
    let nothing = json!({ "image_tokens": 0, "text_tokens": 0 });
    json!({
        "b64_json": STANDARD.encode(&made.bytes),
        "size": format!("{}x{}", made.width, made.height),
        "usage": { "input_tokens": 0, "output_tokens": 0, "total_tokens": 0, "input_tokens_details": nothing },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partial_images_are_spread_over_the_steps() {
        let told =
            |step: usize| json!({ "image": 0, "step": step, "preview": "data:image/jpeg;base64,AA" }).to_string();
        for (steps, wanted, at) in
            [(20, 3, vec![4, 9, 14]), (2, 3, vec![0]), (1, 3, vec![]), (4, 1, vec![1]), (20, 0, vec![])]
        {
            let mut sent = 0;
            let due = (0..steps).filter(|step| partial_image(&told(*step), Some(steps), wanted, &mut sent).is_some());
            assert_eq!(due.collect::<Vec<_>>(), at, "{wanted} of {steps}");
        }
    }
}
