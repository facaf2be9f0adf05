"""The commands that make Ensemble's judge and miniature models: `python -m symskew.ensemble.train --help`."""
