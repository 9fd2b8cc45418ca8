"""A benchmark of shops that differ: each through the whole job, beside methods that anyone fits in an afternoon."""
