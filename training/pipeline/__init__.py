"""Examples and a recipe in, a bundle out: the phases of a fit and the trainer that runs them."""
