"""From the network's output to detections: decoding, suppression, features over sliding windows, linking into tubes."""
