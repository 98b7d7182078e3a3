"""What a text holds: detectors in two tiers, and the kinds of things that they find."""
