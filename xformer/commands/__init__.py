"""The commands of `xformer COMMAND`: each module's docstring is its help, and its `main` reads `sys.argv`."""
