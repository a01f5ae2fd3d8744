"""Everything this package raises on purpose, and an error in one line.

Messages are one or two sentences: what was given, what was expected, what to do.
``InputError`` and its children are also ``ValueError``, so that callers who know nothing of this package can catch them.
"""


class MMAudioError(Exception):
    """Base of every error that this package raises on purpose."""


class InputError(MMAudioError, ValueError):
    """An argument is out of range or contradicts another one."""


class SpecError(InputError):
    """A model configuration is impossible or unknown."""


class MediaError(MMAudioError, ValueError):
    """A video, image or recording cannot be read or written."""


class WeightsError(MMAudioError, ValueError):
    """A weights file is missing, damaged, of the wrong kind, or does not fit the model."""


class DownloadError(MMAudioError, OSError):
    """A published file could not be fetched, or what arrived is not that file."""


class DependencyError(MMAudioError, ImportError):
    """An optional package that this step needs is missing or broken."""


def first_line(error: BaseException) -> str:
    """An error's first sentence without the full stop, at most 200 characters: what fits into another one."""
    line = (str(error).strip().splitlines() or ["no message"])[0].split(". ")[0].rstrip(".")
    return line if len(line) <= 200 else f"{line[:200]}..."
