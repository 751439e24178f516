"""Export: a found network as a folder that runs without nasplat (``bundle.export_bundle``)."""
