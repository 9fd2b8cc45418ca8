"""HTTP requests in, replies out: the BentoML service, its schema and errors, and the model that serves now."""
