"""Style, SVG and HTML pages."""
