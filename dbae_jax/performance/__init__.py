"""What programs cost: FLOPs, memory traffic and time, on present or absent devices."""
