"""``python -m lrp_lightning``."""

import sys

from lrp_lightning.command_line import main

if __name__ == "__main__":
    sys.exit(main())
