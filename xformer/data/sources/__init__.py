"""Where data comes from: files, tables, images, the hub."""
