"""What detections are worth: frame-AP with its error split, MABO, classification, video-AP, by a named protocol."""
