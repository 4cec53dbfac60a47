"""`python -m moleport_bench`."""

from moleport_bench.cli import main

if __name__ == "__main__":
    main()
