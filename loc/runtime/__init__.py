"""Reading photos and running plug-ins: devices, batches, worker processes."""
