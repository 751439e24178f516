"""Looking at a store: pictures of studies. Reads through ``nasplat.storage`` only."""
