"""Draws ground, sky and hardware as a rover's cameras might see them; see ../synthetic_mars.py."""
