"""Random graphs: what is compiled must agree with the reference whatever is combined with what."""
