"""The kernel IR: loops, loads, stores and register tiles over scalar expressions."""
