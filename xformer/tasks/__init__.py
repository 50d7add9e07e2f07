"""Objectives: LightningModules around a model."""
