"""``python -m srp4ctr.cli`` is ``srp4ctr``."""

from srp4ctr.cli.main import main

if __name__ == "__main__":
    main()
