"""`python -m reverie`: the same as the command `reverie`."""

import sys

from reverie.pipelines.cli import main

if __name__ == "__main__":
    sys.exit(main())
