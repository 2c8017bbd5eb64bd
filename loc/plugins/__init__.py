"""What a plug-in is, how it is found, how it is checked."""
