"""The offline half: annotations and videos in, a store of frames and encoded targets out."""
