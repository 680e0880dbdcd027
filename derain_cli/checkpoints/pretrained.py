"""The Hub's mixin around a network; `hub_methods.HubMethods` is what networks inherit."""

from pathlib import Path
from typing import Any, Self, cast

from huggingface_hub import ModelHubMixin, hf_hub_download
from torch import nn

from derain_cli.checkpoints.files import save_checkpoint
from derain_cli.checkpoints.hub import CHECKPOINT_FILE
from derain_cli.checkpoints.resolving import load_model
from derain_cli.errors import CheckpointError, UnavailableError
from derain_cli.models import architecture_of

CARD = """---
{{ card_data }}
---

# A network that takes the rain out of photographs

```sh
derain photo.jpg --model hf:{{ repo_id | default("org/repo", true) }}
```
"""


class OnHub(
    ModelHubMixin,
    library_name="derain",
    pipeline_tag="image-to-image",
    tags=["image-restoration", "deraining"],
    model_card_template=CARD,
):
    """A network as the mixin saves, pushes and loads it."""

    network_class: type[nn.Module] = nn.Module

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> str | None:  # noqa: ANN401
        """Write the checkpoint, its config and its card, and optionally push them."""
        options.setdefault("config", self.network.config)
        return super().save_pretrained(save_directory, **options)

    def _save_pretrained(self, save_directory: Path) -> None:
        name = architecture_of(self.network)
        save_checkpoint(save_directory / CHECKPOINT_FILE, self.network, name, {"recipe": "pushed"})

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        **model_kwargs: Any,  # noqa: ANN401 (a config, which the checkpoint states itself)
    ) -> Self:
        if Path(model_id).is_dir():
            path = Path(model_id) / CHECKPOINT_FILE
        else:
            path = Path(
                hf_hub_download(
                    model_id,
                    CHECKPOINT_FILE,
                    revision=revision,
                    cache_dir=cache_dir,
                    force_download=force_download,
                    local_files_only=local_files_only,
                    token=token,
                )
            )
        if not path.is_file():
            raise UnavailableError(f"no {CHECKPOINT_FILE} in {model_id!r}")
        loaded = load_model(path)
        if not isinstance(loaded.model, cls.network_class):
            raise CheckpointError(
                f"{model_id!r} holds weights of {loaded.architecture!r}, a "
                f"{type(loaded.model).__name__} and no {cls.network_class.__name__}"
            )
        return cast("Self", loaded.model)


def loading(network_class: type[nn.Module]) -> type[OnHub]:
    """The mixin whose `from_pretrained` gives networks of a class."""
    return type(network_class.__name__, (OnHub,), {"network_class": network_class})
