"""The version, in a file of its own: everything may ask for it, and it asks for nothing."""

__all__ = ["__version__"]

__version__ = "0.1.0"
