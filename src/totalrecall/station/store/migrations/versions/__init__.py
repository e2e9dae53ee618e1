"""The steps, in their order: `v0001` makes all tables, `v0002` what the links of a line need."""
