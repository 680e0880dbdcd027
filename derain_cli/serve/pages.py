"""What a browser is sent: the page's files, and the service's description for people."""

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from importlib.resources import files
from typing import Any

STATIC = files("derain_cli.serve") / "static"

MEDIA = {
    ".css": "text/css",
    ".html": "text/html",
    ".jpg": "image/jpeg",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}


def _read_pages() -> Iterator[tuple[str, bytes, str]]:
    for file in sorted(STATIC.iterdir(), key=lambda file: file.name):
        ending = file.name[file.name.rfind(".") :]
        if ending in MEDIA and file.name != "docs.html":
            address = "/" if file.name == "index.html" else f"/{file.name}"
            yield address, file.read_bytes(), MEDIA[ending]


PAGES = tuple(_read_pages())
"""Address, content and media type of each file of the page."""


def reference_page(document: dict[str, Any]) -> bytes:
    """The OpenAPI document as a page to read."""
    template = (STATIC / "docs.html").read_text(encoding="utf-8")
    operations = "".join(
        _operation(address, method, operation)
        for address, methods in document["paths"].items()
        for method, operation in methods.items()
    )
    about = escape(document["info"]["description"])
    page = template.replace("{about}", about).replace("{operations}", operations)
    return page.encode()


def _operation(address: str, method: str, operation: dict[str, Any]) -> str:
    return (
        f'<section id="{escape(operation["operationId"])}">'
        f'<h2><span class="method">{method.upper()}</span> <code>{escape(address)}</code></h2>'
        f"<p><strong>{escape(operation['summary'])}.</strong> "
        f"{escape(operation.get('description', ''))}</p>"
        f"{_parameters(operation.get('parameters', []))}"
        f"{_responses(operation['responses'])}</section>"
    )


def _parameters(parameters: list[dict[str, Any]]) -> str:
    rows = [
        (
            f"<code>{escape(each['name'])}</code>",
            escape(each["in"]),
            _values(each["schema"]),
            escape(each.get("description", "")),
        )
        for each in parameters
    ]
    return _table(("Parameter", "In", "Value", "Meaning"), rows) if rows else ""


def _values(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(f"<code>{escape(value)}</code>" for value in schema["enum"])
    limits = (schema.get("minimum"), schema.get("maximum"))
    span = f" {limits[0]}–{limits[1]}" if None not in limits else ""
    return f"{escape(str(schema['type']))}{span}"


def _responses(responses: dict[str, Any]) -> str:
    rows = [
        (f"<code>{status}</code>", escape(response["description"]))
        for status, response in responses.items()
    ]
    return _table(("Status", "Meaning"), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    titles = "".join(f"<th>{title}</th>" for title in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    table = f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="wide">{table}</div>'
