"""`python -m delegated` is `delegate`."""

import sys

from delegated.cli import main

if __name__ == "__main__":
    sys.exit(main())
