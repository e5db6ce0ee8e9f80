"""Trained model → bundle: ONNX files, cost, embeddings."""
