"""What any run stands on: processes, devices, files, random keys; knows no model or config."""
