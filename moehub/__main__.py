"""`python -m moehub` is the same as `moehub`."""

from moehub.cli import main

if __name__ == "__main__":
    main()
