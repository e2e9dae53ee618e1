"""The steps, in their order: `v0001` makes all tables, `v0002` what links of a line need, `v0003` why jobs failed."""
