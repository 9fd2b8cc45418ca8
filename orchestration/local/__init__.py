"""One machine without set-up: command line, embedded PostgreSQL, services. Never imported by assets."""
