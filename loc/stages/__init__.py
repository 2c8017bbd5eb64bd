"""The stages: one public function per file, walked by both lines."""
