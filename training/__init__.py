"""The additive model: examples and a recipe become a bundle, its figures and a verdict."""
