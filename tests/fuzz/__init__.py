"""Sequences of whatever may be done to a model, and the same model in a world without symskew to hold it to."""
