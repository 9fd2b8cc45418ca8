"""The machine: device, memory, checkpoints, distributed processes."""
