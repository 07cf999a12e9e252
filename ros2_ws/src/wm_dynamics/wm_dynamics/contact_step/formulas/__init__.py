"""The formulas of the contact step, once, for every type of number (``contact_step.numbers``)."""
