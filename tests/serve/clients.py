"""Clients that others wrote, against running servers: clients.py OPEN KEYED OPENAPI, the first two being HOST:PORT.

The second server has the key `secret`. What each of them returns is compared with what another client got for the same seed.
"""

import base64
import io
import json
import sys

import openai
import requests
from openai import OpenAI
from openapi_spec_validator import validate
from PIL import Image
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from sd_backend_client.api.a1111_webservice import A1111Webservice
from sd_backend_client.api.detect import connect_to_backend
from sd_backend_client.api.webui.diffusion_request_body import DiffusionRequestBody
from webuiapi import WebUIApi

OPEN, KEYED, DOCUMENT = sys.argv[1:4]
SEED = 7


def picture(data: str) -> Image.Image:
    return bare(Image.open(io.BytesIO(base64.b64decode(data))))


def bare(image: Image.Image) -> Image.Image:
    """The pixels alone: what a file says of itself is a part of what Pillow compares."""
    return Image.frombytes("RGB", image.size, image.convert("RGB").tobytes())


def refused(kind, call, status=None):
    try:
        call()
    except kind as error:
        assert status is None or error.status_code == status, error
        return str(error)
    raise AssertionError(f"{call} was not refused")


def openai_images() -> Image.Image:
    client = OpenAI(base_url=f"http://{OPEN}/v1", api_key="any")
    assert [model.id for model in client.models.list()] == ["icons-64-consistency", "icons-64"]
    made = client.images.generate(prompt="a red heart", size="64x64", extra_body={"seed": SEED, "steps": 2})
    heart = picture(made.data[0].b64_json)
    assert heart.size == (64, 64)
    several = client.images.generate(prompt="a red heart", n=3, extra_body={"seed": SEED - 1, "steps": 2})
    assert picture(several.data[1].b64_json) == heart, "the second of three has the next seed"

    events = list(client.images.generate(prompt="a red heart", stream=True, partial_images=3, extra_body={"seed": SEED, "steps": 4}))
    assert [event.type for event in events] == ["image_generation.partial_image"] * 3 + ["image_generation.completed"], events
    assert [event.partial_image_index for event in events[:-1]] == [0, 1, 2]
    assert all(picture(event.b64_json).size == (64, 64) for event in events)
    assert events[-1].usage.total_tokens == 0

    mask = Image.new("RGBA", (64, 64), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (0, 0, 32, 64))
    files = {}
    for name, image in (("image", heart), ("mask", mask)):
        files[name] = io.BytesIO()
        image.save(files[name], "png")
        files[name].name = f"{name}.png"
        files[name].seek(0)
    edited = client.images.edit(**files, prompt="a blue fish", model="icons-64", extra_body={"seed": 3, "steps": 3})
    edited = picture(edited.data[0].b64_json)
    assert edited.crop((32, 0, 64, 64)) == heart.crop((32, 0, 64, 64)), "what is opaque in the mask is kept"
    assert edited != heart

    assert "no such" in refused(openai.UnprocessableEntityError, lambda: client.images.generate(prompt="a", extra_body={"sampler": "no such"}))
    refused(openai.NotFoundError, lambda: client.images.generate(prompt="a", model="dall-e-3"))
    refused(openai.BadRequestError, lambda: client.images.create_variation(image=io.BytesIO(b"x")))
    refused(openai.AuthenticationError, lambda: OpenAI(base_url=f"http://{KEYED}/v1", api_key="wrong").models.list())
    assert len(OpenAI(base_url=f"http://{KEYED}/v1", api_key="secret").models.list().data) == 2
    return heart


def webuiapi(heart: Image.Image) -> None:
    host, port = OPEN.split(":")
    api = WebUIApi(host=host, port=int(port), sampler="Euler a", steps=2)
    api.util_wait_for_ready()
    made = api.txt2img(prompt="a red heart", seed=SEED, width=64, height=64)
    assert made.image.size == (64, 64) and made.info["seed"] == SEED
    assert "Sampler: Euler a" in made.info["infotexts"][0] and made.info["infotexts"][0] == api.png_info(made.image).info
    assert len(api.txt2img(prompt="a red heart", seed=SEED, width=64, height=64, batch_size=2, n_iter=2).images) == 4
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 32, 64))
    edited = api.img2img([heart], mask_image=mask, prompt="a blue fish", seed=3, width=64, height=64).image
    edited = bare(edited)
    assert edited.crop((36, 0, 64, 64)) == heart.crop((36, 0, 64, 64)) and edited != heart
    assert api.img2img([heart], prompt="a blue fish", seed=3, width=64, height=64).image.size == (64, 64)
    assert api.extra_single_image(heart, upscaler_1="headwater", upscaling_resize=2).image.size == (128, 128)
    assert api.util_get_current_model() == "icons-64-consistency"
    api.util_set_model("icons-64")
    assert api.util_get_current_model() == "icons-64"
    api.util_set_model("icons-64-consistency")
    assert {"Euler a", "DPM++ 2M"} <= set(api.util_get_sampler_names()) and "karras" in api.util_get_scheduler_names()
    for lists in (api.get_cmd_flags, api.get_upscalers, api.get_loras, api.get_sd_vae, api.get_embeddings, api.get_memory, api.get_prompt_styles,
                  api.get_hypernetworks, api.get_face_restorers, api.refresh_checkpoints, api.get_scripts, api.get_latent_upscale_modes):
        lists()
    api.interrupt()
    assert "tiling" in refused(RuntimeError, lambda: api.txt2img(prompt="a", tiling=True))
    assert "400" in refused(RuntimeError, lambda: api.txt2img(prompt="a", sampler_name="no such"))
    locked = WebUIApi(host=host, port=int(KEYED.split(":")[1]), username="anybody", password="secret")
    assert locked.util_get_model_names() == ["icons-64", "icons-64-consistency"]


def sd_backend_client() -> None:
    service = connect_to_backend(f"http://{OPEN}")
    assert isinstance(service, A1111Webservice)
    body = DiffusionRequestBody(prompt="a red heart", seed=SEED, width=64, height=64)
    result = service.submit_txt2img(body).wait()
    assert result.images[0].size == (64, 64) and result.seeds == [SEED], result
    again = service.submit_txt2img(body).wait()
    assert list(result.images[0].getdata()) == list(again.images[0].getdata()), "one seed, one picture"
    assert service.upscale(result.images[0], 128, 128)["images"][0].size == (128, 128)
    assert service.progress_check().state.job_count == 0
    for lists in (service.get_samplers, service.get_upscalers, service.get_scripts, service.get_script_info, service.get_config, service.get_styles):
        lists()


def open_webui() -> None:
    """The requests of Open WebUI's A1111 engine: it verifies, switches the model by posting all options back, and generates."""
    url, headers = f"http://{OPEN}/sdapi/v1", {"authorization": ""}
    assert requests.get(f"{url}/options", headers=headers).status_code == 200
    models = requests.get(f"{url}/sd-models", headers=headers).json()
    options = requests.get(f"{url}/options", headers=headers).json()
    assert options["sd_model_checkpoint"] in [model["title"] for model in models]
    options["sd_model_checkpoint"] = "icons-64"
    assert requests.post(f"{url}/options", json=options, headers=headers).status_code == 200
    data = {"prompt": "a red heart", "batch_size": 1, "width": 64, "height": 64, "steps": 2, "negative_prompt": "blue", "cfg_scale": 2.0,
            "sampler_name": "Euler", "scheduler": "Karras"}
    made = requests.post(f"{url}/txt2img", json=data, headers=headers).json()
    assert "icons-64" in json.loads(made["info"])["sd_model_name"] and picture(made["images"][0]).size == (64, 64)
    options["sd_model_checkpoint"] = "icons-64-consistency"
    requests.post(f"{url}/options", json=options, headers=headers)
    # Its OpenAI engine.
    data = {"model": "icons-64", "prompt": "a red heart", "n": 1, "size": "64x64", "response_format": "b64_json", "steps": 2}
    made = requests.post(f"http://{OPEN}/v1/images/generations", json=data, headers={"Authorization": "Bearer x"}).json()
    assert picture(made["data"][0]["b64_json"]).size == (64, 64)


def silly_tavern() -> None:
    """The requests of SillyTavern's server: lists, then one picture; it interrupts when its own client goes away."""
    url = f"http://{OPEN}/sdapi/v1"
    for name in ("options", "samplers", "schedulers", "sd-models", "upscalers", "latent-upscale-modes", "sd-vae"):
        assert requests.get(f"{url}/{name}").status_code == 200, name
    data = {"prompt": "a red heart", "negative_prompt": "", "sampler_name": "Euler a", "scheduler": "automatic", "steps": 2, "cfg_scale": 7, "width": 64,
            "height": 64, "restore_faces": False, "enable_hr": False, "hr_upscaler": "Latent", "hr_scale": 1, "hr_additional_modules": [],
            "denoising_strength": 0.7, "hr_second_pass_steps": 0, "seed": 5, "override_settings": {"CLIP_stop_at_last_layers": 1},
            "override_settings_restore_afterwards": True, "clip_skip": 1, "save_images": False, "send_images": True,
            "do_not_save_grid": False, "do_not_save_samples": False}
    made = requests.post(f"{url}/txt2img", json=data)
    assert made.status_code == 200, made.text
    progress = requests.get(f"{url}/progress").json()
    assert progress["progress"] == 0 and progress["state"]["job_count"] == 0
    assert requests.post(f"{url}/interrupt").status_code == 200


def prometheus() -> None:
    """Its own parser, which refuses histograms that do not add up, among others."""
    families = {family.name: family for family in text_string_to_metric_families(requests.get(f"http://{OPEN}/metrics").text)}
    assert families["headwater_steps"].type == "counter" and families["headwater_steps"].samples[0].value > 0
    assert families["headwater_job_seconds"].type == "histogram"
    assert families["process_resident_memory_bytes"].samples[0].value > 1 << 20
    assert requests.get(f"http://{KEYED}/metrics").status_code == 401
    assert requests.get(f"http://{KEYED}/metrics", headers={"Authorization": "Bearer secret"}).status_code == 200


def document() -> None:
    with open(DOCUMENT, encoding="utf-8") as file:
        validate(json.load(file))


if __name__ == "__main__":
    heart = openai_images()
    webuiapi(heart)
    sd_backend_client()
    open_webui()
    silly_tavern()
    prometheus()
    document()
    print("all clients are served")
