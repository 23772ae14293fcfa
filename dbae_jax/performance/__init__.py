"""What programs cost: operations, memory traffic, time, on devices that are here or not."""
