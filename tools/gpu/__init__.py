"""What tools/gpu_check is made of. Each part runs in a process of its own, so that a GPU that fails
in one does not take the others along."""
