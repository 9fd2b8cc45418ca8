"""The additive model σ(f + g): text model f, tabular model g, losses, calibration. Batches in, logits out."""
