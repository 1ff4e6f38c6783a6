"""`python -m dreamforge_cli` is `dreamforge`."""

from dreamforge_cli.main import main

if __name__ == "__main__":
    main()
