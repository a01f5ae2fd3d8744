"""``python -m mmaudio_core`` is the command ``mmaudio``."""

import sys

from .cli import main

sys.exit(main())
