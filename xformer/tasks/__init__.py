"""Tasks: LightningModules that train and evaluate a model on an objective."""
