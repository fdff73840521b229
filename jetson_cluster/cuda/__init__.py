"""The project's own CUDA kernels, nearest.cu and preprocess.cu, and what launches them.

In: device memory. Out: device memory. `grids` decides how a kernel is launched (pure functions),
`launcher` compiles and launches through PyCUDA, imported only when it is used.
"""
