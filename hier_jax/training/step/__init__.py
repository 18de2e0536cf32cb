"""What is compiled: the objective, the update, the views of a device."""
