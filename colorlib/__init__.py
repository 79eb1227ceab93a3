"""Helpers for the four colorization notebooks: what two of them share, or what a test must pin down."""

__version__ = "0.1.0"
