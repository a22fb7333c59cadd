"""Request bodies: how tensors become bytes, what each kind of server takes, and pools of bodies for the load engine."""
