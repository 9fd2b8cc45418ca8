"""A request in, the features of its user and candidates out; and whether they equal the offline ones."""
