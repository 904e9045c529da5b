"""The store's layout."""

IGNORED = 255
