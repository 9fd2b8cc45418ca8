"""What a row is (contracts), how it is kept (storage), and what is normal (suites)."""
