"""The online half: streams a store to a network, and scores what the network finds."""
