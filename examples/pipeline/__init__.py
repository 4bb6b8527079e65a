"""A pipeline of capabilities that call each other."""
