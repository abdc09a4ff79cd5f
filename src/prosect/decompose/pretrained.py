"""Dictionaries in and out: a folder here or a repository on the Hugging Face hub, in any format that is known.

The network is used for a hub id alone, and by two functions alone: `download` and `upload`.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from prosect.core.canonical import Json
from prosect.core.errors import BadInput, UnknownName, UnsafeFile
from prosect.decompose.dictionary import Dictionary
from prosect.decompose.formats.files import whole_folder
from prosect.decompose.formats.imported import Asked, Imported
from prosect.decompose.formats.registry import FILES, MARKS, READERS, WRITERS, recognise, several

_HUB_ID = re.compile(r"^(?P<repository>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:/(?P<folder>[^\\]+?))?/?$")


def load_dictionary(
    where: str | Path,
    format: str | None = None,
    *,
    subfolder: str = "",
    revision: str | None = None,
    sites: str | tuple[str, ...] | None = None,
    targets: str | tuple[str, ...] | None = None,
    scale: float | None = None,
    mean_free: bool | None = None,
    allow_pickle: bool = False,
    device: str = "cpu",
) -> Dictionary:
    """A dictionary that this or another project has saved.

    Its numbers are float32 or wider, whatever they were stored in. What was folded into them, and what the
    files say beside them, is in `import_dictionary`.

    Args:
        where: a folder, a file in it, or a hub id (``owner/name`` or ``owner/name/folder``).
        format: a name in `READERS`; None recognises it by its files.
        subfolder: of the folder or repository.
        revision: branch, tag or commit of a repository.
        sites: what it reads, where the files do not say, or say it in another model's words.
        targets: what it writes, for transcoders.
        scale: what activations were multiplied by before they reached it in training; it is folded away.
        mean_free: whether it was trained on a stream without its mean over dimensions, as TransformerLens makes
            it with ``center_writing_weights``; None takes what the files say. It is folded into the encoder,
            and what is reconstructed is that stream.
        allow_pickle: whether a torch pickle may be opened, for weights alone.
        device: where it is kept.

    Raises:
        BadInput: there is no dictionary, or something in it is missing, damaged or left open.
        UnsafeFile: it is a pickle, and ``allow_pickle`` was not given.
        UnknownName: no such format, architecture or folder.
        Unsupported: an architecture or normalisation that a dictionary here cannot hold.
        ShapeMismatch: tensors that do not fit the configuration.
        NotFinite: NaN or infinity in a tensor.

    """
    asked = Asked(_tuple(sites), _tuple(targets), scale, mean_free, allow_pickle, device)
    return _import(where, format, subfolder, revision, asked).dictionary


def import_dictionary(
    where: str | Path,
    format: str | None = None,
    *,
    subfolder: str = "",
    revision: str | None = None,
    sites: str | tuple[str, ...] | None = None,
    targets: str | tuple[str, ...] | None = None,
    scale: float | None = None,
    mean_free: bool | None = None,
    allow_pickle: bool = False,
    device: str = "cpu",
) -> Imported:
    """What `load_dictionary` gives, with the record of its files: format, architecture, configuration, folds.

    Raises:
        BadInput: as `load_dictionary`.
    """
    asked = Asked(_tuple(sites), _tuple(targets), scale, mean_free, allow_pickle, device)
    return _import(where, format, subfolder, revision, asked)


def save_dictionary(
    folder: str | Path,
    dictionary: Dictionary,
    format: str = "saelens",
    *,
    metadata: Mapping[str, Json] | None = None,
    frequencies: Float[Tensor, " latents"] | None = None,
) -> Path:
    """Save a fitted dictionary as another project would; returns the folder.

    Args:
        folder: a new or empty folder, which is made whole or not at all.
        dictionary: what to save.
        format: a name in `WRITERS`; ``prosect`` keeps every dictionary to the bit.
        metadata: what is known of the model and the data, by SAELens's names (``model_name``,
            ``dataset_path``, ``context_size`` ...); formats without room for it leave it out.
        frequencies: the share of tokens on which each latent fired; likewise.

    Raises:
        UnknownName: no such format.
        Unsupported: the format has no such architecture; one that has is named.
        Conflict: the folder holds something.
        BadInput: it is not fitted, or the place cannot be written.
    """
    write = WRITERS.get(format)
    with whole_folder(Path(folder)) as temporary:
        write(temporary, dictionary, metadata or {}, frequencies)
    return Path(folder)


def push_to_hub(
    dictionary: Dictionary,
    repository: str,
    *,
    subfolder: str = "",
    format: str = "saelens",
    private: bool = False,
    message: str = "Upload dictionary",
    metadata: Mapping[str, Json] | None = None,
    frequencies: Float[Tensor, " latents"] | None = None,
) -> str:
    """Save a dictionary to a repository on the hub, making it if it is not there; returns the commit's address.

    Args:
        dictionary: what to save.
        repository: ``owner/name``.
        subfolder: of the repository.
        format: as for `save_dictionary`.
        private: whether a repository that is made can be seen by others.
        message: of the commit.
        metadata: as for `save_dictionary`.
        frequencies: as for `save_dictionary`.

    Raises:
        BadInput: the name is no repository's, or the hub refuses.
        Unsupported: the format has no such architecture.
    """
    found = _HUB_ID.match(repository)
    if found is None or found["folder"]:
        raise BadInput(f"the repository {repository!r}", "owner/name", "subfolder= for a folder in it")
    with tempfile.TemporaryDirectory() as temporary:
        folder = save_dictionary(
            Path(temporary) / "dictionary", dictionary, format, metadata=metadata, frequencies=frequencies
        )
        return upload(folder, repository, subfolder, private, message)


def download(repository: str, subfolder: str, revision: str | None) -> Path:
    """Fetch the files of one dictionary into the hub's cache; returns the folder.

    Raises:
        UnsafeFile: the folder would lead out of the repository.
        UnknownName: the repository has no dictionary in that folder; those that it has are named.
        BadInput: no such repository or revision, no access to it, or no network.
    """
    from huggingface_hub import HfApi, snapshot_download

    inside = subfolder.strip("/")
    if ".." in inside.split("/"):
        raise UnsafeFile(f"the folder {subfolder!r} of {repository}", "a folder in it")
    prefix = f"{inside}/" if inside else ""
    with _hub_errors(repository):
        root = snapshot_download(
            repository, revision=revision, allow_patterns=[f"{prefix}{name}" for name in FILES]
        )
        folder = Path(root, prefix)
        if any((folder / marks.weights).is_file() for marks in MARKS.values()):
            return folder
        files = HfApi().list_repo_files(repository, revision=revision)
    weights = {marks.weights for marks in MARKS.values()}
    folders = sorted({str(Path(f).parent) for f in files if Path(f).name in weights})
    raise UnknownName("folder with a dictionary", subfolder or ".", folders, several(folders))


def upload(folder: Path, repository: str, subfolder: str, private: bool, message: str) -> str:
    """Send a folder to the hub; returns the commit's address.

    Raises:
        BadInput: the hub refuses, or there is no network.
    """
    from huggingface_hub import HfApi

    with _hub_errors(repository):
        api = HfApi()
        api.create_repo(repository, private=private, exist_ok=True)
        done = api.upload_folder(
            folder_path=folder,
            repo_id=repository,
            path_in_repo=subfolder.strip("/") or None,
            commit_message=message,
        )
    return str(done.commit_url)


def _import(
    where: str | Path, format: str | None, subfolder: str, revision: str | None, asked: Asked
) -> Imported:
    folder = _local(where, subfolder)
    if folder is None:
        found = _HUB_ID.match(str(where))
        if found is None or isinstance(where, Path):
            raise BadInput(f"{where}, which does not exist", "a folder, or a hub id such as owner/name")
        inside = "/".join(part for part in (found["folder"], subfolder) if part)
        folder = download(found["repository"], inside, revision)
    elif revision is not None:
        raise BadInput(f"revision {revision!r} of {folder}, a folder here", "a revision of a repository")
    read = READERS.get(format if format is not None else recognise(folder))
    imported: Imported = read(folder, asked)
    return imported


def _local(where: str | Path, subfolder: str) -> Path | None:
    """The folder here that is meant; None if there is no such place."""
    path = Path(where).expanduser()
    if path.is_file():
        path = path.parent
    return path / subfolder if path.is_dir() else None


@contextmanager
def _hub_errors(repository: str) -> Iterator[None]:
    """Turns what the hub's client raises into a message that names the repository."""
    try:
        yield
    except (OSError, ValueError) as error:  # its errors are all of one or the other
        raise BadInput(
            f"{repository}, which is no folder here and which the hub did not serve ({_first(error)})",
            "a folder, or a repository that you can reach",
            "its name, its access rights (hf auth login) and the network",
        ) from error


def _first(error: Exception) -> str:
    """The first line of what an error says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _tuple(sites: str | tuple[str, ...] | None) -> tuple[str, ...] | None:
    return (sites,) if isinstance(sites, str) else sites
