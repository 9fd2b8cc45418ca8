"""Great Expectations suites built from the contracts."""
