"""The additive model σ(f + g): f, the text model; g, the tabular model; losses and calibration. Batches in, logits out."""
