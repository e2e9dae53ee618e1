"""The steps, in their order: `v0001` makes all tables."""
