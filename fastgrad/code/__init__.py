"""What Python code reads and changes, as far as it tells: what programs compare before they are
replayed, and why some functions are not."""
