"""An examples folder in, batches of tensors out: split by time, sampled, transformed, collated."""
