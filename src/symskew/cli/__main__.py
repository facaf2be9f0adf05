"""`python -m symskew.cli` is `symskew`."""

from symskew.cli import main

main()
