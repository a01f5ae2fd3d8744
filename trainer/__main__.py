"""``python -m trainer``: the command ``mmaudio-train``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
