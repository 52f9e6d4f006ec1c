"""A dropped request file becomes a checked second opinion."""

__version__ = "0.1.0"
