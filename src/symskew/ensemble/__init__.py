"""Ensemble: an embedded benchmark of coloured handwritten digits, and miniature models trained on it."""
