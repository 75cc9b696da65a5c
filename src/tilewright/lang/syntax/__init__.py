"""Text of a `.kyn` file to a typed syntax tree that keeps every comment. Sees only `core`."""
