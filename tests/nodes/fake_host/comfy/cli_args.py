"""The command line, with nothing on it."""

from types import SimpleNamespace

args = SimpleNamespace(disable_xformers=False)
