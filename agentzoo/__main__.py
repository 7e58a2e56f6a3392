"""`python -m agentzoo`, which is the command line."""

from agentzoo.cli import main

if __name__ == "__main__":
    main()
