"""What goes wrong in the core reaches the page as one plain sentence on the node that it happened in."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from ...mmaudio_core.errors import MMAudioError

Result = TypeVar("Result")
MEMORY_ADVICE = (
    "choose fp16 or bf16 in the loader, a shorter duration, fewer takes at once or a smaller variant, or start ComfyUI with "
    "--lowvram."
)


def plainly(execute: Callable[..., Result]) -> Callable[..., Result]:
    """Wraps a node's work: errors of the core become ValueError, and a lack of memory says what to change.

    ComfyUI shows an error's full type name, which for the core's classes begins with the path of this pack. An error of a full
    GPU keeps its type, because the host then unloads every model.
    """

    @functools.wraps(execute)
    def wrapped(*args: Any, **kwargs: Any) -> Result:
        try:
            return execute(*args, **kwargs)
        except MMAudioError as error:
            raise ValueError(str(error)) from error
        except torch.cuda.OutOfMemoryError as error:
            raise torch.cuda.OutOfMemoryError(f"The GPU's memory is full: {MEMORY_ADVICE}") from error
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, MemoryError) or ("alloc" in str(error) and "memory" in str(error)):
                raise MemoryError(f"The computer's memory is full: {MEMORY_ADVICE}") from error
            raise

    return wrapped
