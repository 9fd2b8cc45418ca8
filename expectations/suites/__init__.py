"""Great Expectations suites built from the contracts: landed tables in, checked tables, quarantine and reports out."""
