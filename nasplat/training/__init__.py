"""Training of networks: the recipe, augmentation in batch on the device, and the trainer."""
