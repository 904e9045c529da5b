"""What the pipeline and the trainer agree on: dataset cards, table schemas and the store's layout."""
