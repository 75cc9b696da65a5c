"""Derivatives as graph -> graph transformations: rules on one page per kind, transforms over them."""
