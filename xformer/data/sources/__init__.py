"""Data sources: files, tables, images and Hugging Face datasets."""
