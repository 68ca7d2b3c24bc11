"""Results as files, figures and pages."""
