"""Makes the built-in synthetic sample: drawn faces, formed by camera models (real) or by generator models (fake)."""
