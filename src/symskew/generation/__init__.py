"""Generate images from requests: deterministic, in batches, every image with the settings that made it."""

from symskew.generation.request import Request, check, complete
from symskew.generation.run import Result, generate, repeat
from symskew.generation.settings import describe_request, request_of, settings_id, versions

__all__ = [
    "Request",
    "Result",
    "check",
    "complete",
    "describe_request",
    "generate",
    "repeat",
    "request_of",
    "settings_id",
    "versions",
]
