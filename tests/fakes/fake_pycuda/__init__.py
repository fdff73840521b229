"""A strict stand-in for PyCUDA over a GPU that is not there; tests use it through fake_jetson.

`machine` is the computer (memory, contexts, streams, what went wrong), `driver` what PyCUDA shows
of it, `kernels` the project's CUDA kernels, computed by numpy.
"""
