"""The service's description: an OpenAPI 3.1 document, made from the tables that the code uses."""

from typing import Any

from derain_cli.serve.failures import MEANINGS
from derain_cli.serve.jobs import FORMATS, LAYERS, MEDIA_TYPES
from derain_cli.serve.settings import ServeOptions
from derain_cli.version import __version__

JSON = "application/json"
Json = dict[str, Any]


def describe_service(options: ServeOptions) -> Json:
    """The OpenAPI document of a server with these limits."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "derain",
            "version": __version__,
            "summary": "Takes the rain out of photos.",
            "description": (
                "Send an image, get it back without its rain: same format, same metadata. "
                f"An upload may have {options.max_megabytes} MB and {options.max_pixels:,} pixels. "
                f"One image is derained at a time; {options.queue} may wait, and more are "
                "answered with 503 and a Retry-After. Nothing is kept after its answer."
            ),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {
            "/v1/derain": {"post": _derain()},
            "/v1/preview": {"post": _preview()},
            "/v1/models": {"get": _get("The weights that a request may name", _models(), "models")},
            "/v1/jobs/{job}": {"get": _job()},
            "/healthz": {
                "get": _get("Whether the server is up, and how full", _health(), "health")
            },
        },
        "components": {"schemas": {"Error": _error()}},
    }


def _derain() -> Json:
    return {
        "operationId": "derain",
        "summary": "Take the rain out of an image",
        "description": (
            "The image is the raw body, or the file of the multipart field `image`; the parameters "
            "stand in the address, or are more fields of the form. The answer has the same bytes "
            "as a file that `derain` writes."
        ),
        "parameters": [*_parameters(), _job_header()],
        "requestBody": _body(_form_fields()),
        "responses": _image_responses()
        | _failures("400", "403", "404", "408", "409", "413", "422", "503", "507"),
    }


def _preview() -> Json:
    name = next(each for each in _parameters() if each["name"] == "name")
    return {
        "operationId": "preview",
        "summary": "The image as it is, as a file that every browser shows",
        "description": "For formats that browsers do not show, such as TIFF and HEIC.",
        "parameters": [name, _job_header()],
        "requestBody": _body({}),
        "responses": _image_responses()
        | _failures("400", "403", "408", "409", "413", "422", "503", "507"),
    }


def _parameters() -> list[Json]:
    texts = {
        "model": "Name of the weights; the server's own choice when left out.",
        "strength": "Share of the rain that is removed.",
        "format": "File format of the answer; that of the image when left out.",
        "quality": "Of JPEG, WebP and AVIF; as the image when left out.",
        "layer": "The derained image, the rain that was in it, or before and after side by side.",
        "name": "What the image is called in messages and in the answer's file name.",
    }
    return [
        {"name": name, "in": "query", "description": text, "schema": _schemas()[name]}
        for name, text in texts.items()
    ]


def _schemas() -> dict[str, Json]:
    return {
        "model": {"type": "string"},
        "strength": {"type": "number", "minimum": 0, "maximum": 1, "default": 1},
        "format": {"type": "string", "enum": sorted(FORMATS)},
        "quality": {"type": "integer", "minimum": 1, "maximum": 100},
        "layer": {"type": "string", "enum": list(LAYERS), "default": LAYERS[0]},
        "name": {"type": "string"},
    }


def _form_fields() -> dict[str, Json]:
    return {each["name"]: each["schema"] for each in _parameters()}


def _job_header() -> Json:
    return {
        "name": "Derain-Job",
        "in": "header",
        "description": "A name of your own for this request, to ask /v1/jobs/{job} how far it is.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9-]{1,64}$"},
    }


def _body(fields: dict[str, Json]) -> Json:
    file = {"type": "string", "format": "binary"}
    form = {"type": "object", "required": ["image"], "properties": {"image": file} | fields}
    raw = {"schema": {"type": "string", "format": "binary"}}
    return {
        "required": True,
        "content": {
            "image/*": raw,
            "application/octet-stream": raw,
            "multipart/form-data": {"schema": form},
        },
    }


def _image_responses() -> Json:
    headers = {
        "Derain-Model": "The weights that were used.",
        "Derain-Notices": "A JSON list of what the user should know.",
        "Content-Disposition": "The answer's file name.",
    }
    return {
        "200": {
            "description": "The image.",
            "headers": {
                name: {"description": text, "schema": {"type": "string"}}
                for name, text in headers.items()
            },
            "content": {
                media: {"schema": {"type": "string", "format": "binary"}}
                for media in MEDIA_TYPES.values()
            },
        }
    }


def _failures(*statuses: str) -> Json:
    meanings = {
        str(status): f"{meaning} (exit code {code})" for code, (status, meaning) in MEANINGS.items()
    }
    meanings |= {
        "400": "usage (exit code 2), or nothing to do (exit code 3)",
        "403": "a request of another site, or for another host",
        "408": "the upload stopped",
        "409": "a request with this Derain-Job is in progress already",
        "413": "the upload is too long",
        "503": "all places are taken: try again after Retry-After seconds",
    }
    schema = {"$ref": "#/components/schemas/Error"}
    return {
        status: {"description": meanings[status], "content": {JSON: {"schema": schema}}}
        for status in statuses
    }


def _get(summary: str, schema: Json, operation: str) -> Json:
    content = {JSON: {"schema": schema}}
    return {
        "operationId": operation,
        "summary": summary,
        "responses": {"200": {"description": summary, "content": content}} | _failures("403"),
    }


def _job() -> Json:
    number = {"type": ["number", "null"]}
    states = ["receiving", "waiting", "reading", "deraining", "writing", "unknown"]
    fields = {
        "state": {"type": "string", "enum": states},
        "place": {
            "type": ["integer", "null"],
            "description": "Place in the queue, from 1, while it waits.",
        },
        "seconds": number,
        "expected_seconds": number,
    }
    described = _get("How far a request is", {"type": "object", "properties": fields}, "job")
    path = {"name": "job", "in": "path", "required": True, "schema": {"type": "string"}}
    return described | {"parameters": [path]}


def _models() -> Json:
    number = {"type": ["number", "null"]}
    fields = {
        "name": {"type": "string"},
        "default": {"type": "boolean"},
        "summary": {"type": "string"},
        "harm": {"type": ["string", "null"], "description": "What these weights do badly."},
        "seconds_per_megapixel": number,
        "megabytes": number,
    }
    models = {"type": "array", "items": {"type": "object", "properties": fields}}
    return {"type": "object", "properties": {"default": {"type": "string"}, "models": models}}


def _health() -> Json:
    count = {"type": "integer"}
    fields: Json = {"status": {"type": "string"}, "version": {"type": "string"}}
    fields |= {"model": {"type": "string"}}
    fields |= dict.fromkeys(("places", "taken", "waiting", "answered"), count)
    return {"type": "object", "properties": fields}


def _error() -> Json:
    fields = {
        "code": {
            "type": "integer",
            "description": "Exit code of the command for the same failure.",
        },
        "meaning": {"type": "string"},
        "message": {"type": "string", "description": "The value, the cause and the way out."},
    }
    error = {"type": "object", "required": list(fields), "properties": fields}
    return {"type": "object", "required": ["error"], "properties": {"error": error}}
