"""`python -m tonelake`: the command line."""

from tonelake.cli import main

if __name__ == "__main__":
    main()
