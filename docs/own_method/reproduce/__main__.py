"""python -m own_method.reproduce, with this package's parent folder on PYTHONPATH or installed."""

from common.command.cli import main

if __name__ == "__main__":
    main(paper="own_method")
