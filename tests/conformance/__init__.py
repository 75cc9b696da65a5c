"""Every operation of the graph: reference, compiled code and gradients, held together by one table."""
