//! What the own API takes and gives, as an OpenAPI document, made from the same definitions that requests are parsed by.

use super::super::fields::{self, COMMANDS};
use super::super::limits::{Limits, PROMPT};
use serde_json::{Map, Value, json};

/// The document. Limits are those of the server that gives it.
pub(in super::super) fn document(limits: &Limits) -> Value {
    let mut schemas = Map::new();
    for command in COMMANDS {
        schemas.insert(schema_name(command), command_schema(command, limits));
    }
    let of = |command: &str| format!("#/components/schemas/{}", schema_name(command));
    let mapping: Map<String, Value> =
        COMMANDS.iter().map(|command| ((*command).to_owned(), json!(of(command)))).collect();
    let all: Vec<Value> = COMMANDS.iter().map(|command| json!({ "$ref": of(command) })).collect();
    schemas.insert(
        "Request".into(),
        json!({ "oneOf": all, "discriminator": { "propertyName": "command", "mapping": mapping } }),
    );
    schemas.insert("Image".into(), image_schema());
    schemas.insert("Job".into(), job_schema());
    schemas.insert("Error".into(), error_schema());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Headwater",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Jobs that make images. A job is submitted, watched, and its images are fetched. Fields are the command line's flags, \
                            with _ for -; what is left out is the model's own.",
        },
        "servers": [{ "url": "/" }],
        "security": [{}, { "bearer": [] }, { "basic": [] }],
        "paths": paths(),
        "components": {
            "schemas": schemas,
            "securitySchemes": { "bearer": { "type": "http", "scheme": "bearer" }, "basic": { "type": "http", "scheme": "basic" } },
            "responses": {
                "Error": {
                    "description": "A refusal: one sentence, and the field that it is about",
                    "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Error" } } },
                },
            },
        },
    })
}

fn schema_name(command: &str) -> String {
    let mut letters = command.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn command_schema(command: &str, limits: &Limits) -> Value {
    let picture = |what: &str| json!({ "type": "string", "description": format!("{what}: a PNG, JPEG, WebP, BMP, GIF or TIFF file in base64, or a data URL of one") });
    let mut properties = Map::new();
    let mut put = |name: &str, schema: Value| properties.insert(name.to_owned(), schema);
    // Only a request for generate may leave it out.
    put("command", json!({ "const": command }));
    put(
        "model",
        json!({ "type": "string", "description": "An id of /api/models [default: the first, or of some commands the one that the command line takes]" }),
    );
    put(
        "prompt",
        json!({ "type": "string", "maxLength": PROMPT, "description": "What the image shows; a class-conditional or unconditional model takes none" }),
    );
    if command != "generate" {
        put("image", picture("The picture to start from"));
    }
    if ["inpaint", "colorize"].contains(&command) {
        put(
            "mask",
            picture("What is made anew, white; or a box X,Y,WIDTH,HEIGHT; or alpha, where the picture is transparent"),
        );
    }
    put("format", json!({ "enum": ["png", "jpeg", "webp"], "default": "png", "description": "Of the images" }));
    put("quality", json!({ "type": "integer", "minimum": 1, "maximum": 100, "description": "Of JPEG" }));
    put(
        "previews",
        json!({
            "enum": [true, false, "denoised", "both"], "default": false,
            "description": "Whether events of steps carry pictures: of the denoised image (preview), and with both of the noisy sample, too (noisy)",
        }),
    );
    if command == "generate" {
        put(
            "reference",
            json!({
                "type": "boolean", "default": false,
                "description": "Whether the probability-flow ODE is solved from the same noise, and steps and images say how far they are from it (error)",
            }),
        );
    }
    put(
        "detached",
        json!({ "type": "boolean", "default": false, "description": "Whether the job goes on when those who watched its events have left" }),
    );
    for field in fields::of(command).unwrap_or_default() {
        let mut schema = field.schema();
        match field.name() {
            "steps" => schema["maximum"] = json!(limits.steps),
            "count" => schema["maximum"] = json!(limits.images),
            "negative_prompt" => schema["maxLength"] = json!(PROMPT),
            _ => {}
        }
        put(field.name(), schema);
    }
    let mut required = Vec::new();
    if command != "generate" {
        required.extend(["command", "image"]);
    }
    if command == "inpaint" {
        required.push("mask");
    }
    let mut schema = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

fn image_schema() -> Value {
    json!({
        "type": "object",
        "required": ["index", "seed", "width", "height", "url", "settings"],
        "properties": {
            "index": { "type": "integer" }, "seed": { "type": "integer" }, "width": { "type": "integer" }, "height": { "type": "integer" },
            "url": { "type": "string", "description": "Where it is, below this server" },
            "settings": { "type": "object", "description": "Everything needed to make it again, as the file itself says" },
            "error": { "type": ["number", "null"], "description": "With reference: root mean square of its sample minus the solution of the ODE; null where there is none" },
        },
    })
}

fn job_schema() -> Value {
    json!({
        "type": "object",
        "required": ["id", "state", "position", "command", "model", "seed", "count", "steps", "steps_taken", "created", "images", "error"],
        "properties": {
            "id": { "type": "string" },
            "state": { "enum": ["queued", "running", "done", "failed", "cancelled"] },
            "position": { "type": ["integer", "null"], "description": "How many jobs come before it, while it waits" },
            "command": { "enum": COMMANDS },
            "model": { "type": "string" },
            "prompt": { "type": ["string", "null"] },
            "seed": { "type": "integer", "description": "Of the first image; each further one has the next" },
            "count": { "type": "integer" },
            "steps": { "type": ["integer", "null"], "description": "Of an image; null where the sampler chooses them" },
            "steps_taken": { "type": "integer", "description": "Of all images" },
            "created": { "type": "integer", "description": "Seconds since 1970" },
            "images": { "type": "array", "items": { "$ref": "#/components/schemas/Image" } },
            "error": { "type": ["string", "null"] },
        },
    })
}

fn error_schema() -> Value {
    json!({
        "type": "object",
        "required": ["error"],
        "properties": { "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": { "type": "string" }, "type": { "type": "string" }, "param": { "type": ["string", "null"] }, "code": { "type": "string" },
            },
        } },
    })
}

fn paths() -> Value {
    let json_of = |description: &str, schema: Value| json!({ "description": description, "content": { "application/json": { "schema": schema } } });
    let job = || json!({ "$ref": "#/components/schemas/Job" });
    let id = json!({ "name": "id", "in": "path", "required": true, "schema": { "type": "string" } });
    let error = json!({ "$ref": "#/components/responses/Error" });
    let events = "Server-sent events. queued {position} whenever the place in the queue changes; started {id}; step {image, step, steps, sigma, \
                  evaluations, seconds, preview?, noisy?}, steps from 0 and null where the sampler chooses how many, pictures as data URLs; image, as \
                  in a job's images; and last done {}, failed {error} or cancelled {}. Each but queued has an id: whoever comes back with \
                  Last-Event-ID misses nothing.";
    json!({
        "/api/jobs": {
            "post": {
                "operationId": "submit",
                "summary": "Submit a job",
                "requestBody": { "required": true, "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Request" } } } },
                "responses": {
                    "202": json_of("The job, which waits", job()),
                    "413": error, "422": error, "429": error, "default": error,
                },
            },
            "get": {
                "operationId": "list",
                "summary": "List the jobs of whoever asks",
                "responses": {
                    "200": json_of("The newest last", json!({ "type": "object", "required": ["jobs"], "properties": { "jobs": { "type": "array", "items": job() } } })),
                    "default": error,
                },
            },
        },
        "/api/jobs/{id}": {
            "parameters": [id],
            "get": { "operationId": "show", "summary": "Tell how a job stands", "responses": { "200": json_of("The job", job()), "default": error } },
            "delete": { "operationId": "cancel", "summary": "Cancel a job, which ends at its next step", "responses": { "200": json_of("The job", job()), "default": error } },
        },
        "/api/jobs/{id}/events": {
            "parameters": [id],
            "get": {
                "operationId": "watch",
                "summary": "Watch a job",
                "responses": {
                    "200": { "description": events, "content": { "text/event-stream": { "schema": { "type": "string" } } } },
                    "default": error,
                },
            },
        },
        "/api/jobs/{id}/images/{index}": {
            "parameters": [id, { "name": "index", "in": "path", "required": true, "schema": { "type": "integer" } }],
            "get": {
                "operationId": "image",
                "summary": "An image, as a file",
                "responses": {
                    "200": { "description": "The file", "content": { "image/png": {}, "image/jpeg": {}, "image/webp": {} } },
                    "default": error,
                },
            },
        },
        "/api/models": { "get": { "operationId": "models", "summary": "List the models", "responses": { "200": json_of("Each with its own defaults, and the commands that take it where none is named (default_of)", json!({ "type": "object" })) } } },
        "/api/samplers": { "get": { "operationId": "samplers", "summary": "List samplers and schedules", "responses": { "200": json_of("As headwater samplers --json", json!({ "type": "object" })) } } },
        "/api/info": { "get": { "operationId": "info", "summary": "Version, devices, limits", "responses": { "200": json_of("Of this server", json!({ "type": "object" })) } } },
        "/metrics": { "get": {
            "operationId": "metrics",
            "summary": "Queue, times, steps, memory, for Prometheus",
            "responses": { "200": { "description": "In the OpenMetrics text format", "content": { "application/openmetrics-text": { "schema": { "type": "string" } } } } },
        } },
        "/healthz": { "get": {
            "operationId": "healthz",
            "summary": "Whether the server answers; needs no key",
            "security": [],
            "responses": { "200": { "description": "ok", "content": { "text/plain": { "schema": { "type": "string" } } } } },
        } },
    })
}
