"""Loop nests of each anchor as functions of a small parameter record."""
