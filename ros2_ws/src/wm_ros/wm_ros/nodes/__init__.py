"""What every node is made of: lifecycle, parameters, start-up, clients, heartbeat, memory."""
