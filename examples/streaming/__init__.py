"""Three ways to answer more than once."""
