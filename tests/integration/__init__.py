"""The real pipeline on tiny data: real DVC, real TensorFlow, real MLflow."""
