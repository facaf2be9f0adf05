"""Tiny instances of every model class of diffusers, and what is true of control and diagnosis on them."""
