"""Who answers: one backend seam, its implementations, and the routes that lead to them."""
