"""Reading what TensorFlow wrote (bundles, graphs, DELF's protocol buffers) without TensorFlow."""
