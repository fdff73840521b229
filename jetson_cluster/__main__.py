"""`python -m jetson_cluster` is the same as `jetson-cluster`."""

import sys

from jetson_cluster.cli import main

if __name__ == "__main__":
    sys.exit(main())
