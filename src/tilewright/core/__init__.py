"""What every layer shares: data types, shapes, the scalar vocabulary, diagnostics, settings and trees."""
