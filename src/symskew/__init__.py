"""Look inside and steer the self-attention of generative models: symmetric energy, skew circulation."""

__version__ = "0.1.0"
