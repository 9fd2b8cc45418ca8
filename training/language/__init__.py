"""Texts in, vectors out: the pretrained language model, its adapters and pretraining objectives."""
