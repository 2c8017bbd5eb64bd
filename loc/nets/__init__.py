"""Network trunks that several methods share; plug-ins bring the weights."""
