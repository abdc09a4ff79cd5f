"""The names by which Hugging Face's own models are loaded, saved and shared, for dictionaries."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from prosect.decompose.dictionary import Dictionary


class Exchanged:
    """What a `Dictionary` gains by `prosect.decompose.pretrained`, under the names that people look for."""

    @classmethod
    def from_pretrained(cls, where: str | Path, **options: Any) -> Dictionary:
        """A dictionary from a folder or a hub id. See `prosect.decompose.pretrained.load_dictionary`."""
        from prosect.decompose.pretrained import load_dictionary

        return load_dictionary(where, **options)

    def save_pretrained(self, folder: str | Path, **options: Any) -> Path:
        """Save it as another project would. See `prosect.decompose.pretrained.save_dictionary`."""
        from prosect.decompose.pretrained import save_dictionary

        return save_dictionary(folder, cast("Dictionary", self), **options)

    def push_to_hub(self, repository: str, **options: Any) -> str:
        """Save it to a repository on the hub. See `prosect.decompose.pretrained.push_to_hub`."""
        from prosect.decompose.pretrained import push_to_hub

        return push_to_hub(cast("Dictionary", self), repository, **options)
