"""What any run stands on: processes, devices, files and random keys; knows no model, data or config."""
