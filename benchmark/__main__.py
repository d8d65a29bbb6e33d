"""`python -m benchmark`, the same as the `adapterbench` command."""

import sys

from benchmark.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
