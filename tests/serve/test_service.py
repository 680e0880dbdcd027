"""The web service, asked over the wire."""

import io
import json
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from derain_cli.cli.app import app
from tests.serve.conftest import Server

NAMED = ("derain", "preview")  # whose requests may have a name
MakePicture = Callable[..., Path]


@pytest.fixture
def photo(tmp_path: Path, make_image: MakePicture) -> Path:
    exif = Image.Exif()
    exif[0x010F] = "Regenmacher"
    return make_image(tmp_path / "photo.jpg", (40, 24), exif=exif, quality=88)


@pytest.fixture
def derained_by_command(photo: Path, tiny_checkpoint: Path) -> Callable[..., bytes]:
    """The bytes that the command writes for the photo."""

    def derain(*options: str, ending: str = "jpg") -> bytes:
        target = photo.with_name(f"by_command.{ending}")
        engine = ["-m", str(tiny_checkpoint), "-d", "cpu", "--threads", "1", "--overwrite"]
        words = [str(photo), "-o", str(target), *engine, *options]
        result = CliRunner().invoke(app, ["derain", *words])
        assert result.exit_code == 0, result.output
        return target.read_bytes()

    return derain


def noise(width: int, height: int) -> bytes:
    """A PNG that takes the network a while."""
    pixels = np.random.default_rng(0).integers(0, 255, (height // 8, width // 8, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST).save(stream, "png")
    return stream.getvalue()


def test_a_raw_body_gives_the_bytes_that_the_command_writes(
    server: Server, photo: Path, derained_by_command: Callable[..., bytes]
) -> None:
    reply = server.post(photo.read_bytes(), "?name=photo.jpg")
    assert reply.status == 200
    assert reply.body == derained_by_command()
    assert reply.body != photo.read_bytes()
    assert reply.headers["Content-Type"] == "image/jpeg"
    assert reply.headers["Derain-Model"] == "tiny"
    assert "photo_derained.jpg" in reply.headers["Content-Disposition"]
    assert Image.open(io.BytesIO(reply.body)).getexif()[0x010F] == "Regenmacher"


def test_a_form_and_its_options_do_too(
    server: Server, photo: Path, derained_by_command: Callable[..., bytes]
) -> None:
    reply = server.post_form("photo.jpg", photo.read_bytes(), strength="0.5", format="png")
    assert reply.status == 200
    assert reply.body == derained_by_command("--strength", "0.5", ending="png")
    assert "photo_derained.png" in reply.headers["Content-Disposition"]


def test_layers_are_those_of_the_command(
    server: Server, photo: Path, derained_by_command: Callable[..., bytes]
) -> None:
    derained_by_command("--save-rain", "--compare")
    for layer in ("rain", "compare"):
        reply = server.post(photo.read_bytes(), f"?layer={layer}")
        assert reply.body == photo.with_name(f"by_command_{layer}.jpg").read_bytes()


def test_sixteen_bits_are_kept_and_previews_are_for_browsers(server: Server) -> None:
    import tifffile

    stream = io.BytesIO()
    deep = np.random.default_rng(1).integers(0, 65535, (20, 30, 3), np.uint16)
    tifffile.imwrite(stream, deep, photometric="rgb")
    reply = server.post(stream.getvalue())
    assert tifffile.imread(io.BytesIO(reply.body)).dtype == np.uint16
    preview = server.ask("POST", "/v1/preview?name=deep.tif", stream.getvalue())
    assert preview.headers["Content-Type"] == "image/jpeg"
    assert Image.open(io.BytesIO(preview.body)).size == (30, 20)


@pytest.mark.parametrize(
    ("query", "body", "status", "code", "words"),
    [
        ("", b"", 400, 3, "no image was sent"),
        ("", b"<html>", 422, 1, "HTML"),
        ("?model=hcm", b"x", 404, 4, "unknown model 'hcm'"),
        ("?model=/etc/passwd", b"x", 404, 4, "unknown model '/etc/passwd'"),
        ("?strength=2", b"x", 400, 2, "strength must be a number from 0 to 1, not '2'"),
        ("?strength=nan", b"x", 400, 2, "strength"),
        ("?quality=9.5", b"x", 400, 2, "quality"),
        ("?format=gif", b"x", 400, 2, "unknown format 'gif'"),
        ("?strenght=1", b"x", 400, 2, "Did you mean 'strength'?"),
    ],
)
def test_failures_are_json_with_the_meaning_of_the_exit_codes(
    server: Server, query: str, body: bytes, status: int, code: int, words: str
) -> None:
    reply = server.post(body, query)
    assert (reply.status, reply.error["code"]) == (status, code)
    assert words in reply.error["message"]
    assert "\n" not in reply.error["message"]


def test_too_long_and_too_large_are_refused(server: Server) -> None:
    reply = server.post(bytes(1_100_000))
    assert (reply.status, reply.error["meaning"]) == (413, "too large")
    reply = server.post(noise(1600, 800))
    assert (reply.status, reply.error["code"]) == (422, 1)
    assert "the limit is 1,000,000" in reply.error["message"]


def test_a_form_without_an_image_says_so(server: Server) -> None:
    body = b'--m\r\nContent-Disposition: form-data; name="image"\r\n\r\ntext\r\n--m--\r\n'
    reply = server.ask("POST", "/v1/derain", body, Content_Type="multipart/form-data; boundary=m")
    assert (reply.status, reply.error["code"]) == (400, 2)
    assert "is text, not a file" in reply.error["message"]
    # Types of content are the same in any case.
    reply = server.ask("POST", "/v1/derain", body, Content_Type="Multipart/Form-Data; boundary=m")
    assert "is text, not a file" in reply.error["message"]
    reply = server.ask("POST", "/v1/derain", b"cut", Content_Type="multipart/form-data; boundary=m")
    assert reply.status == 400


def test_wrong_addresses_and_methods_are_json_too(server: Server) -> None:
    assert server.ask("GET", "/nothing").error["code"] == 2
    assert server.ask("GET", "/v1/derain").status == 405


def test_a_full_line_says_no_and_loses_nothing(server: Server) -> None:
    image = noise(640, 480)
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: server.post(image), range(16)))
    statuses = {reply.status for reply in replies}
    assert statuses == {200, 503}
    refused = next(reply for reply in replies if reply.status == 503)
    assert int(refused.headers["Retry-After"]) >= 1
    assert refused.error["code"] == 5
    assert len({reply.body for reply in replies if reply.status == 200}) == 1
    assert server.ask("GET", "/healthz").json["taken"] == 0


def test_a_client_that_leaves_frees_its_place(server: Server) -> None:
    image = noise(960, 960)
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", server.port)) as leaving:
            head = f"POST /v1/derain HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(image)}"
            leaving.sendall(head.encode() + b"\r\n\r\n" + image)
            time.sleep(0.05)
    for _ in range(200):
        if server.ask("GET", "/healthz").json["taken"] == 0:
            break
        time.sleep(0.05)
    assert server.post(noise(64, 64)).status == 200


def test_a_job_tells_how_far_it_is(server: Server) -> None:
    states: set[str | int] = set()
    job = "5f7e"
    asking = threading.Thread(
        target=server.post, args=(noise(960, 960),), kwargs={"Derain_Job": job}
    )
    asking.start()
    while asking.is_alive():
        state = server.ask("GET", f"/v1/jobs/{job}").json["state"]
        states.add(state)
        if state == "deraining":
            states.add(server.post(b"x", Derain_Job=job).status)
    assert {"deraining", 409} <= states
    document = server.ask("GET", "/openapi.json").json["paths"]
    assert all("409" in document[f"/v1/{name}"]["post"]["responses"] for name in NAMED)
    assert server.ask("GET", f"/v1/jobs/{job}").json["state"] == "unknown"


def test_a_host_that_is_none_is_refused_as_any_other(server: Server) -> None:
    reply = server.ask("GET", "/healthz", Host="[")
    assert (reply.status, "a request for host '['" in reply.error["message"]) == (403, True)


def test_only_this_machines_own_page_may_ask(server: Server) -> None:
    assert server.ask("GET", "/", Host="rebound.example").status == 403
    assert server.ask("GET", "/", Sec_Fetch_Site="cross-site").status == 403
    link = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Dest": "document"}
    assert server.ask("GET", "/", **link).status == 200
    assert server.ask("GET", "/v1/models", **link).status == 403
    assert server.ask("GET", "/", Host="localhost", Sec_Fetch_Site="none").status == 200


def test_a_browser_that_names_only_where_a_page_is_from_is_told_apart(server: Server) -> None:
    own = {"Host": "localhost:8765", "Origin": "http://localhost:8765"}
    assert server.ask("GET", "/v1/models", **own).status == 200
    for origin in ("http://evil.example", "http://localhost:9999", "null"):
        assert server.ask("GET", "/v1/models", **own | {"Origin": origin}).status == 403


def test_the_page_asks_nobody_else(server: Server) -> None:
    policy = server.ask("GET", "/").headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for address in ("/", "/page.js", "/page.css", "/viewer.js", "/service.js", "/zip.js", "/docs"):
        reply = server.ask("GET", address)
        assert reply.status == 200
        text = reply.body.decode().replace("http://127.0.0.1:8765", "")
        assert "http://" not in text
        assert "https://" not in text


def test_models_and_health_and_description_agree(server: Server) -> None:
    models = server.ask("GET", "/v1/models").json
    assert models["default"] == "tiny"
    assert [model["name"] for model in models["models"] if model["default"]] == ["tiny"]
    assert "rdmc-real" in {model["name"] for model in models["models"]}
    health = server.ask("GET", "/healthz").json
    assert (health["status"], health["model"], health["places"]) == ("ok", "tiny", 3)
    document = server.ask("GET", "/openapi.json").json
    described = document["paths"]["/healthz"]["get"]["responses"]["200"]["content"]
    assert set(health) == set(described["application/json"]["schema"]["properties"])
    for address in document["paths"]:
        assert address in server.ask("GET", "/docs").body.decode()
        assert server.ask("GET", address.format(job="none")).status in (200, 405)


def test_a_taken_port_is_one_line(server: Server) -> None:
    result = CliRunner().invoke(app, ["serve", "--port", str(server.port)])
    assert result.exit_code == 2
    assert result.stderr == (
        f"error: port {server.port} is taken by another program: choose another with --port, "
        "or 0 for any\n"
    )


def test_a_missing_extra_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = CliRunner().invoke(app, ["serve"])
    assert result.exit_code == 2
    assert result.stderr == (
        "error: derain serve needs 'starlette', which is not installed: "
        "pip install 'derain-cli[serve]'\n"
    )


def test_notices_come_along(server: Server) -> None:
    stream = io.BytesIO()
    Image.new("P", (16, 16)).save(stream, "gif")
    reply = server.post(stream.getvalue(), "?name=a.gif")
    assert reply.headers["Content-Type"] == "image/png"
    assert any(
        "GIF is only read" in notice for notice in json.loads(reply.headers["Derain-Notices"])
    )
