"""Training: the trainer, what a recipe is made of, and the networks it starts from."""
