"""Decides on board which images a rover sends first, and prepares that decision on the ground."""

__version__ = "0.1.0"
