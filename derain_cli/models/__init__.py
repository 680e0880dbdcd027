"""The networks: one paper, one file, one line in `MODELS`.

Every network takes a rainy image `(batch, 3, height, width)` in 0..1, of any size, and returns
the derained image of the same shape (not clipped). Adding one: write its file, add its line
here and its entry in `weights/weights.toml`.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, cast, runtime_checkable

from torch import Tensor, nn

from derain_cli.errors import ConfigError, UsageError, did_you_mean
from derain_cli.models import hcn, menet, moss, nimbus, prenet, rdmc, resnet, swinir, unet
from derain_cli.sizes import round_up


@runtime_checkable
class DerainNetwork(Protocol):
    """What the engine and the trainer use of a network; the whole contract, in one place.

    A network is a `torch.nn.Module` with these two. What it can offer besides is `HasFolded` and
    `HasSharedWeight` below, batch norm through `conv_norm.ConvNorm`, and what its line in `MODELS`
    says: above all its padding multiple, its receptive radius and the keyword arguments of
    `forward` that make it return everything its losses need (`training_outputs`).
    """

    @property
    def config(self) -> Any:  # noqa: ANN401 (each network has its own)
        """The frozen dataclass it was built from; a checkpoint stores its fields."""

    def forward(self, rainy: Tensor) -> Tensor:
        """The derained image for a rainy one, `(batch, 3, height, width)` in 0..1, not clipped.

        Any height and width from 1 up; the network pads and cuts by itself.
        """


@runtime_checkable
class HasFolded(Protocol):
    """A network that merges its batch norms in a way of its own."""

    def folded(self) -> nn.Module:
        """An equal network for inference; checked against this one when it is made ready."""


@runtime_checkable
class HasSharedWeight(Protocol):
    """A network whose losses can be balanced by their gradients (`--loss-weighting gb`)."""

    @property
    def last_shared_weight(self) -> Tensor:
        """Weight of the last convolution that all outputs pass through."""


@runtime_checkable
class HasContext(Protocol):
    """A network that averages something over the whole image, such as for channel attention.

    The engine takes that average over all tiles first and hands it to `forward` of each as
    `context_mean`, so that tiles equal the whole image.
    """

    def context(self, rainy: Tensor) -> Tensor | None:
        """What is averaged, `(batch, channels, height / multiple, width / multiple)`, or None."""


@dataclass(frozen=True)
class ModelEntry:
    """What the engine and a reader must know of a network.

    Attributes:
        build: Makes the untrained network from its config.
        config: The config dataclass; its defaults are the published network.
        paper: Where the network was published.
        padding_multiple: Heights and widths that run without padding are multiples of this; tiles
            start at multiples of it, so that down-sampling grids of tile and picture agree.
        tile_overlap: Pixels by which neighbouring tiles overlap by default.
        receptive_radius: An output pixel depends on no pixel farther away than this, leaving out
            what `HasContext` averages. None when it depends on the whole image: see
            `not_tile_exact`.
        not_tile_exact: Why tiles cannot equal the whole image exactly, if they cannot.
        not_exportable: Why `torch.export` cannot take it, if it cannot.
        training_outputs: Keyword arguments of `forward` that make it return all that its losses
            need, the derained image first.
    """

    build: Callable[[Any], nn.Module]
    config: type[Any]
    paper: str
    padding_multiple: int
    tile_overlap: int
    receptive_radius: int | None
    not_tile_exact: str = ""
    not_exportable: str = ""
    training_outputs: Mapping[str, Any] = field(default_factory=dict)


MODELS: Mapping[str, ModelEntry] = {
    "hcn": ModelEntry(
        build=hcn.Hcn,
        config=hcn.HcnConfig,
        paper="Wang, Pan, Wu, AAAI 2022",
        padding_multiple=32,
        tile_overlap=96,
        receptive_radius=None,
        not_tile_exact="similarity mining lets every place look at every other",
        training_outputs={"all_outputs": True},
    ),
    "moss": ModelEntry(
        build=moss.Moss,
        config=moss.MossConfig,
        paper="Huang et al., CVPR 2021",
        padding_multiple=8,
        tile_overlap=96,
        receptive_radius=426,
    ),
    "rdmc": ModelEntry(
        build=rdmc.Rdmc,
        config=rdmc.RdmcConfig,
        paper="Jiang et al., IEEE TCSVT 2023",
        padding_multiple=16,
        tile_overlap=224,
        receptive_radius=3 * 155,
    ),
    "menet": ModelEntry(
        build=menet.Menet,
        config=menet.MenetConfig,
        paper="Multi-Task Learning Enhanced Single Image De-Raining (MENET)",
        padding_multiple=16,
        tile_overlap=112,
        receptive_radius=81,
    ),
    "menet-deep": ModelEntry(
        build=menet.Menet,
        config=menet.MenetDeepConfig,
        paper="Multi-Task Learning Enhanced Single Image De-Raining (MENET)",
        padding_multiple=16,
        tile_overlap=160,
        receptive_radius=145,
    ),
    "rdmc-supernet": ModelEntry(
        build=rdmc.RdmcSupernet,
        config=rdmc.SupernetConfig,
        paper="Jiang et al., IEEE TCSVT 2023: the network that `derain search` searches",
        padding_multiple=16,
        tile_overlap=224,
        receptive_radius=3 * 155,
        not_exportable="which edges are computed depends on the alphas; export the found network",
    ),
    "prenet": ModelEntry(
        build=prenet.PReNet,
        config=prenet.PReNetConfig,
        paper="Ren et al., CVPR 2019",
        padding_multiple=1,
        tile_overlap=96,
        receptive_radius=6 * 13,
    ),
    "nimbus": ModelEntry(
        build=nimbus.Nimbus,
        config=nimbus.NimbusConfig,
        paper="this project's own, no paper",
        padding_multiple=16,
        tile_overlap=320,
        receptive_radius=347,
    ),
    "resnet": ModelEntry(
        build=resnet.ResNet,
        config=resnet.ResNetConfig,
        paper="Ledig et al., CVPR 2017, as in Gu et al., NeurIPS 2023",
        padding_multiple=1,
        tile_overlap=88,
        receptive_radius=2 * 16 + 3,
    ),
    "unet": ModelEntry(
        build=unet.UNet,
        config=unet.UNetConfig,
        paper="Ronneberger et al., MICCAI 2015, as in Gu et al., NeurIPS 2023",
        padding_multiple=8,
        tile_overlap=120,
        receptive_radius=51,
    ),
    "swinir": ModelEntry(
        build=swinir.SwinIR,
        config=swinir.SwinIRConfig,
        paper="Liang et al., ICCVW 2021, as in Gu et al., NeurIPS 2023",
        padding_multiple=8,
        tile_overlap=64,
        receptive_radius=103,
    ),
}


def list_models() -> tuple[str, ...]:
    """Names of the networks, in the order of `MODELS`.

    Example:
        >>> "rdmc" in list_models()
        True
    """
    return tuple(MODELS)


def architecture_of(model: nn.Module) -> str:
    """Key of `MODELS` that a network was built from.

    Raises:
        UsageError: It is none of these networks.
    """
    kind, config = type(model), type(getattr(model, "config", None))
    for name, entry in MODELS.items():
        if (entry.build, entry.config) == (kind, config):
            return name
    raise UsageError(f"a {kind.__name__} is no network of this program")


def find_model(name: str) -> ModelEntry:
    """Entry of a network by name.

    Raises:
        UsageError: No network has this name; the nearest is suggested.
    """
    if name not in MODELS:
        raise UsageError(f"unknown model {name!r}. {did_you_mean(name, MODELS)}")
    return MODELS[name]


def entry_of(model: nn.Module) -> ModelEntry:
    """The entry of a network that was built, with padding multiple and reach of its own config.

    The tiles of one that sees farther than the published network overlap as much more. One with
    more halvings needs tiles of another grid too, and nobody has measured whether that overlap is
    enough.

    Raises:
        UsageError: It is none of these networks.
    """
    entry = find_model(architecture_of(model))
    published = entry.padding_multiple
    multiple: int = getattr(model.config, "padding_multiple", published)
    if published % multiple == 0:
        return _seeing(entry, getattr(model.config, "receptive_radius", entry.receptive_radius))
    return dataclasses.replace(
        entry,
        padding_multiple=multiple,
        tile_overlap=entry.tile_overlap * max(multiple, published) // published,
        receptive_radius=None,
        not_tile_exact=entry.not_tile_exact
        or "how far a network of this config sees was not measured",
    )


def _seeing(entry: ModelEntry, radius: int | None) -> ModelEntry:
    """The entry of a network that sees so far; its tiles never overlap less than the entry's."""
    if radius is None or entry.receptive_radius is None or radius == entry.receptive_radius:
        return entry
    farther = max(1, radius / entry.receptive_radius)
    overlap = round_up(math.ceil(entry.tile_overlap * farther), entry.padding_multiple)
    return dataclasses.replace(entry, receptive_radius=radius, tile_overlap=overlap)


def build_model(name: str, config: Mapping[str, Any] | None = None) -> nn.Module:
    """Untrained network.

    Args:
        name: A key of `MODELS`.
        config: Fields of the network's config that differ from the published ones.

    Raises:
        UsageError: Unknown name.
        ConfigError: Unknown or impossible config field.

    Example:
        >>> sum(p.numel() for p in build_model("rdmc").parameters())
        247587
    """
    entry, given = find_model(name), config or {}
    known = [field.name for field in dataclasses.fields(entry.config)]
    for option in given:
        if option not in known:
            hint = did_you_mean(option, known)
            raise ConfigError(f"model {name!r} has no option {option!r}. {hint}")
    try:
        return entry.build(entry.config(**given))
    except TypeError as error:
        told = ", ".join(f"{option}={value!r}" for option, value in given.items())
        usual = ", ".join(f"{option}={getattr(entry.config(), option)!r}" for option in given)
        reason = f"a value of {told} is of the wrong kind (as published: {usual})"
        raise ConfigError(f"config of model {name!r}: {reason}") from error
    except ValueError as error:
        raise ConfigError(f"config of model {name!r}: {error}") from error


def model_config(model: nn.Module) -> dict[str, Any]:
    """The config a network was built from, as JSON can hold it."""
    return dataclasses.asdict(cast(DerainNetwork, model).config)
