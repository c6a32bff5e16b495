"""``python -m wukong``: the same as the command ``wukong``."""

import sys

from wukong.cli import main

if __name__ == "__main__":
    sys.exit(main())
