"""How a run goes: when its turn comes, and that nothing of it outlives it."""
