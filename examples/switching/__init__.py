"""Three models, one token."""
