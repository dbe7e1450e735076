"""Making a checkpoint: pre-training on the planet, and the adapters for retrieval and GPS."""
