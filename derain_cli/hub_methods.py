"""`from_pretrained`, `save_pretrained` and `push_to_hub`, which every network inherits."""

from importlib import import_module
from pathlib import Path
from typing import Any, Self


class HubMethods:
    """The Hub's usual three methods, carried out by the Hub's own mixin.

    What is saved is a checkpoint of ours, so `derain --model hf:org/repo` and `from_pretrained`
    take the same repositories. The mixin loads when one of these is called: it costs as much as a
    third of a second, and deraining a photo needs none of it.
    """

    @classmethod
    def from_pretrained(cls, name_or_folder: str | Path, **options: Any) -> Self:  # noqa: ANN401
        """The network with the weights of a repository `org/repo`, or of a folder.

        Args:
            name_or_folder: A repository of the Hub, or a folder that holds `model.safetensors`.
            **options: As of the Hub's mixin: `revision`, `token`, `cache_dir`, `force_download`,
                `local_files_only`.

        Raises:
            CheckpointError: The weights are of another network, or damaged.
        """
        network: Self = _mixin().loading(cls).from_pretrained(name_or_folder, **options)
        return network

    def save_pretrained(self, folder: str | Path, **options: Any) -> str | None:  # noqa: ANN401
        """Write `model.safetensors`, `config.json` and a model card into a folder.

        Args:
            folder: Made when it is not there.
            **options: As of the Hub's mixin: `repo_id`, `push_to_hub` and so on.

        Returns:
            Address of the commit, if it was pushed.
        """
        address: str | None = _mixin().OnHub(self).save_pretrained(folder, **options)
        return address

    def push_to_hub(self, repo_id: str, **options: Any) -> str:  # noqa: ANN401
        """Upload the network; the repository is made when it is not there.

        Args:
            repo_id: `org/repo`.
            **options: As of the Hub's mixin: `private`, `token`, `branch`, `commit_message` …

        Returns:
            Address of the commit.
        """
        address: str = _mixin().OnHub(self).push_to_hub(repo_id, **options)
        return address


def _mixin() -> Any:  # noqa: ANN401 (a module above this one, which imports the networks)
    return import_module("derain_cli.checkpoints.pretrained")
