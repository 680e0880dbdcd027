"""Images of every kind that a caller may hold: each comes back as the kind it was.

- A `Picture`, as `read_image` gives it.
- A PIL image of any mode.
- An array `(height, width)` or `(height, width, 1 to 4)` of uint8, uint16, or float in 0..1: gray,
  gray with alpha, RGB, RGB with alpha.
- A tensor `(..., 3, height, width)` or `(..., 1, height, width)` of uint8, or float in 0..1.

Type and shape stay as they are, gray stays gray, and alpha is not touched. PIL's modes L, LA, RGB,
RGBA, I and I;16 stay; other modes of 16 bits come back as I;16. The rest cannot hold every colour
and come back as RGB, or as RGBA where there was transparency.
"""

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from derain_cli.errors import UsageError
from derain_cli.images import Picture
from derain_cli.images.pillow import colour_conversion
from derain_cli.inference.pixels import Levels, blended

if TYPE_CHECKING:
    from torch import Tensor

    from derain_cli.inference.derainer import Derainer

PIL_MODES = ("L", "LA", "RGB", "RGBA", "I;16")
DEEP_MODES = ("I", "I;16B", "I;16L", "I;16N")


def derain_any(derainer: "Derainer", image: Any, strength: float) -> Any:  # noqa: ANN401
    """The derained image, of the kind of the given one.

    Args:
        derainer: The network.
        image: Any of the kinds above.
        strength: How much of the rain is removed, 0..1.

    Raises:
        UsageError: Another kind, or values outside of their range.
    """
    if isinstance(image, Picture):
        return image.with_rgb(derainer.run(image.rgb, strength)[0])
    if isinstance(image, Image.Image):
        return _derain_pil(derainer, image, strength)
    if isinstance(image, np.ndarray):
        return _derain_array(derainer, image, strength)
    # Whoever holds a tensor has loaded torch; arrays do without.
    if "torch" in sys.modules and isinstance(image, sys.modules["torch"].Tensor):
        return _derain_tensor(derainer, image, strength)
    raise UsageError(
        f"an image must be a Picture, a PIL image, an array or a tensor, not {type(image).__name__}"
        + ("; read_image reads one from a path" if isinstance(image, str | bytes) else "")
    )


def _derain_pil(derainer: "Derainer", image: Image.Image, strength: float) -> Image.Image:
    if image.mode == "F":
        raise UsageError("a PIL image of mode F says nothing of its range: give an array in 0..1")
    if image.mode not in PIL_MODES + DEEP_MODES:
        image = _in_colours(image)
    values = _in_16_bits(image) if image.mode in DEEP_MODES else np.asarray(image)
    derained = _derain_array(derainer, values, strength)
    result = Image.fromarray(derained.astype(np.int32) if image.mode == "I" else derained)
    result.info = dict(image.info)
    return result


def _in_colours(image: Image.Image) -> Image.Image:
    """RGB, with alpha where there is some; what described the colours before goes."""
    if image.mode == "La":
        return image.convert("LA")
    if image.mode in ("CMYK", "LAB"):
        converted = colour_conversion(image, [])(image)
        converted.info = {key: value for key, value in image.info.items() if key != "icc_profile"}
        return converted
    clear = image.mode in ("PA", "RGBa") or "transparency" in image.info
    return image.convert("RGBA" if clear else "RGB")


def _in_16_bits(image: Image.Image) -> NDArray[np.uint16]:
    """Gray of a mode that `convert` would cut at 255."""
    values = np.asarray(image)
    least, most = values.min(initial=0), values.max(initial=0)
    if least < 0 or most > np.iinfo(np.uint16).max:
        raise UsageError(
            f"a PIL image of mode {image.mode} must hold 0 to 65535, not {least} to {most}"
        )
    return values.astype(np.uint16)


def _derain_array(derainer: "Derainer", image: NDArray[Any], strength: float) -> NDArray[Any]:
    if image.ndim not in (2, 3) or (image.ndim == 3 and not 1 <= image.shape[2] <= 4):
        shape = "x".join(str(side) for side in image.shape) or "no size"
        raise UsageError(
            f"an array must be height x width, or height x width x 1 to 4 channels, not {shape}; "
            "give several images as a list"
        )
    channels = image[..., None] if image.ndim == 2 else image
    colours = channels[..., : 3 if channels.shape[2] >= 3 else 1]
    derained = _derain_colours(derainer, np.repeat(colours, 3 // colours.shape[2], 2), strength)
    result: NDArray[Any] = channels.copy()
    result[..., : colours.shape[2]] = _back_to(derained, colours.shape[2])
    return result.reshape(image.shape)


def _derain_colours(derainer: "Derainer", rgb: NDArray[Any], strength: float) -> NDArray[Any]:
    if rgb.dtype.kind != "f":
        return derainer.run(rgb, strength)[0]
    levels = rgb.astype(np.float32).transpose(2, 0, 1)[None]
    derained = _derain_levels(derainer, levels, strength)[0].transpose(1, 2, 0)
    return np.asarray(derained, rgb.dtype)


def _back_to(rgb: NDArray[Any], channels: int) -> NDArray[Any]:
    """Three channels as they are, or as their mean, rounded to the type's levels."""
    if channels == 3:
        return rgb
    mean = rgb.mean(axis=2, keepdims=True)
    gray: NDArray[Any] = (mean if rgb.dtype.kind == "f" else np.rint(mean)).astype(rgb.dtype)
    return gray


def _derain_tensor(derainer: "Derainer", image: "Tensor", strength: float) -> "Tensor":
    import torch  # noqa: PLC0415 (loaded already)

    if image.ndim < 3 or image.shape[-3] not in (1, 3):
        raise UsageError(
            "a tensor must be (channels, height, width) or (batch, channels, height, width) with 1 "
            f"or 3 channels, not {tuple(image.shape)}"
        )
    if not (image.is_floating_point() or image.dtype == torch.uint8):
        raise UsageError(f"a tensor must be uint8, or float in 0..1, not {image.dtype}")
    gray, whole = image.shape[-3] == 1, image.dtype == torch.uint8
    levels = image.detach().reshape(-1, *image.shape[-3:]).cpu().float()
    levels = (levels / 255 if whole else levels).expand(-1, 3, -1, -1)
    derained = torch.from_numpy(_derain_levels(derainer, levels.numpy(), strength))
    derained = derained.mean(dim=1, keepdim=True) if gray else derained
    derained = (derained * 255).round() if whole else derained
    return derained.reshape(image.shape).to(image.device, image.dtype)


def _derain_levels(derainer: "Derainer", levels: Levels, strength: float) -> Levels:
    """`(batch, 3, height, width)` in 0..1, part of the rain removed."""
    if not 0 <= strength <= 1:
        raise UsageError(f"strength must lie in 0..1, not {strength}")
    if levels.size == 0:
        raise UsageError(f"an image of shape {levels.shape} has nothing in it")
    least, most = float(levels.min()), float(levels.max())
    if not (least >= 0 and most <= 1):
        raise UsageError(
            f"a float image must lie in 0..1, not {least:.3g}..{most:.3g}; "
            "divide by its white level first"
        )
    return blended(levels, derainer.derain_levels(levels), strength)
