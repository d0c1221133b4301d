"""Files as another torch might write them: other names, other alignment, compressed."""

import io
import zipfile

import torch


def save_otherwise(
    state, file, *, rename=("", ""), compression=zipfile.ZIP_STORED, save=torch.save
) -> None:
    """Write what ``torch.save`` writes, entry by entry, as another writer of archives does."""
    written = io.BytesIO()
    save(state, written)
    with (
        zipfile.ZipFile(written) as source,
        zipfile.ZipFile(file, "w", compression) as target,
    ):
        for name in source.namelist():
            target.writestr(name.replace(*rename), source.read(name))
