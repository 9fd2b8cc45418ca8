"""What data must be: contracts say what a row is, suites say what is normal."""
