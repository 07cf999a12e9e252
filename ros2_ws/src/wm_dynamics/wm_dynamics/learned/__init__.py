"""The ``learned`` dynamics backend: belief samples, interventions and the contact step, many futures at once."""
