"""Networks that `export` can build: each module turns weights into a graph up to a chosen layer."""
