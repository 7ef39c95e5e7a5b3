"""`python -m flows.cli` is the command `vidloop`."""

from flows.cli.main import main

if __name__ == "__main__":
    main()
