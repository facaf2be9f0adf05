"""The two uses of a diagnosis, tried on Ensemble: screening of seeds, and gated control.

`python -m symskew.trials` makes every number of `docs/diagnosis.md`.
"""
