"""Named tensors as they must be: of the right names, shapes and kinds, and finite."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from reverie.data.errors import UserError

_REMEDY = "use an undamaged checkpoint of this version of the code"


def require_alike(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], file: Path) -> None:
    """`require_fitting`, and finite."""
    require_fitting(found, expected, file)
    require_finite(found, file)


def require_fitting(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], file: Path) -> None:
    """Raises `UserError` unless `found`, read from `file`, has the names, shapes and dtypes of `expected`."""
    for name in sorted(found.keys() ^ expected.keys()):
        what = "has no" if name in expected else "has the unknown"
        raise UserError(f"{file}: does not fit its config.json: {what} tensor {name}; {_REMEDY}.")
    for name, tensor in expected.items():
        for there, wanted in ((found[name].shape, tensor.shape), (found[name].dtype, tensor.dtype)):
            if there != wanted:
                raise UserError(
                    f"{file}: does not fit its config.json: {name} is {_words(there)}, not {_words(wanted)}; {_REMEDY}."
                )


def require_finite(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Raises `UserError` naming the first tensor, read from `file`, that is not finite."""
    name = first_nonfinite(tensors)
    if name is not None:
        raise UserError(f"{file}: {name} is not finite; {_REMEDY}.")


def first_nonfinite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor with a nan or an infinity; waits for the device once."""
    names = [name for name, x in tensors.items() if x.is_floating_point()]
    if not names:
        return None
    finite = torch.stack([torch.isfinite(tensors[name]).all() for name in names]).tolist()
    return next((name for name, fine in zip(names, finite, strict=True) if not fine), None)


def _words(shape_or_dtype: torch.Size | torch.dtype) -> str:
    return str(list(shape_or_dtype)) if isinstance(shape_or_dtype, torch.Size) else str(shape_or_dtype)
