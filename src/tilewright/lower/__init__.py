"""Graph to kernels: fusion groups, index algebra (``read``) and anchors. The only package that sees both IRs."""
