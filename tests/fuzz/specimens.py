"""Small whole files of every kind that is read, with all the metadata that they can hold."""

import io
import json
import struct
import zlib

import cv2
import numpy as np
import tifffile
from PIL import Image, ImageCms

from derain_cli.images import Metadata, Picture, encode_image

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    b'xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="1.0" '
    b'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="1"/></rdf:RDF></x:xmpmeta>'
)


def image_files() -> dict[str, bytes]:
    """Name, which ends as the format does, to content."""
    random = np.random.default_rng(0)
    photo = cv2.resize(random.integers(0, 256, (6, 8, 3), np.uint8), (48, 40))
    deep = photo.astype(np.uint16) * 257
    alpha = np.full(photo.shape[:2], 200, np.uint8)
    exif = Image.Exif()
    exif[271], exif[274], exif[0x8769] = "Canon", 6, {0x927C: b"a note"}
    exif[0x8825] = {1: "N", 2: (48.0, 8.0, 15.5)}
    metadata = Metadata(
        exif=exif.tobytes().removeprefix(b"Exif\0\0"),
        icc=SRGB,
        xmp=XMP,
        extended_xmp=XMP,
        dpi=(300.0, 200.0),
        iptc=b"\x1c\x02\x78\x00\x04Rain",
        comment=b"by hand",
        geo=((33550, 12, struct.pack("<3d", 0.5, 0.5, 0)), (42113, 2, b"-9999\0")),
        png_chunks=((b"tEXt", b"Author\0Jane"), (b"cICP", bytes([9, 18, 0, 1]))),
        lossless=False,
    )
    files = {}
    for format in ("avif", "bmp", "jpeg", "png", "tiff", "webp"):
        files[f"plain.{format}"] = encode_image(Picture(photo, metadata=metadata), format)
        files[f"gray.{format}"] = encode_image(Picture(photo, gray=True, metadata=metadata), format)
        if format not in ("bmp", "jpeg"):
            files[f"alpha.{format}"] = encode_image(
                Picture(photo, alpha, metadata=metadata), format
            )
    for format in ("png", "tiff"):
        files[f"deep.{format}"] = encode_image(Picture(deep, metadata=metadata), format)
    return files | _files_of_others(photo, deep)


def _files_of_others(photo: np.ndarray, deep: np.ndarray) -> dict[str, bytes]:
    """Layouts that are read and not written."""
    image = Image.fromarray(photo)
    files = {}
    for name, source, options in (
        ("progressive.jpeg", image, {"progressive": True, "exif": b"Exif\0\0II*\0\x08\0\0\0\0\0"}),
        ("cmyk.jpeg", image.convert("CMYK"), {}),
        ("palette.png", image.convert("P"), {"transparency": bytes(100)}),
        ("fax.tiff", image.convert("1"), {"compression": "group4"}),
        ("lzw.tiff", image, {"compression": "tiff_lzw"}),
        ("jpeg.tiff", image, {"compression": "jpeg"}),
        ("cmyk.tiff", image.convert("CMYK"), {}),
        ("loop.gif", image, {"save_all": True, "append_images": [image.rotate(9)]}),
        ("loop.webp", image, {"save_all": True, "append_images": [image.rotate(9)]}),
        ("loop.png", image, {"save_all": True, "append_images": [image.rotate(9)]}),
        ("pair.jpeg", image, {"format": "MPO", "save_all": True, "append_images": [image]}),
    ):
        buffer = io.BytesIO()
        format = options.pop("format", name.rpartition(".")[2].upper())
        source.save(buffer, format, **options)
        files[name] = buffer.getvalue()
    for name, options in (
        ("tiled.tiff", {"tile": (16, 16)}),
        ("big.tiff", {"bigtiff": True, "byteorder": ">"}),
        ("planes.tiff", {"compression": "adobe_deflate", "predictor": True}),
    ):
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, deep, photometric="rgb", metadata=None, **options)
        files[name] = buffer.getvalue()
    files["lzw16.tiff"] = cv2.imencode(".tif", deep, [cv2.IMWRITE_TIFF_COMPRESSION, 5])[1].tobytes()
    files["interlaced.png"] = _interlaced(deep)
    return files


def _interlaced(samples: np.ndarray) -> bytes:
    """A 16-bit PNG in seven passes."""
    steps = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2))
    rows = b"".join(
        b"\0" + row.astype(">u2").tobytes()
        for top, left, down, right in (*steps, (1, 0, 2, 1))
        for row in samples[top::down, left::right]
    )
    height, width = samples.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 1)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I4s", len(data), kind) + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def other_files() -> dict[str, bytes]:
    """What else a stranger may hand over: a checkpoint, and the texts of runs and weights."""
    import torch
    from safetensors.torch import save

    from derain_cli.models import build_model, model_config
    from derain_cli.training.configs.train import TrainConfig

    model = build_model("rdmc", {"widths": [2, 2, 2, 2, 2]})
    described = {"format": "1", "model": "rdmc", "model_config": json.dumps(model_config(model))}
    config = TrainConfig(dataset=("x",)).to_json()
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    state = io.BytesIO()
    torch.save({"run": {"step": 3}, "recipe": {"x": torch.zeros(3)}}, state)
    entry = '[x]\nmodel = "rdmc"\nfile = "x.safetensors"\nsha256 = "00"\nsummary = "y"\n'
    lines = '{"step": 1, "loss": 0.5, "seconds": 1.0}\n{"step": 2, "psnr": 30.0, "seconds": 2.0}\n'
    return {
        "x.safetensors": save(tensors, described | {"config": config, "recipe": "supervised"}),
        "weights.toml": entry.encode(),
        "config.json": config.encode(),
        "metrics.jsonl": lines.encode(),
        "state.pt": state.getvalue(),
    }
