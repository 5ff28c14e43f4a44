"""`python -m fcot_lite` is `fcot`."""

from fcot_lite.cli import main

main()
