"""Data for training: tables read from files, checked, encoded and split into arrays."""
