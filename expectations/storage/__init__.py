"""Writing so that a reader sees the old or the new, never a half: files, versioned datasets, hashes."""
