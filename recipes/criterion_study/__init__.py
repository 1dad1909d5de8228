"""Which criterion and which allocation: four tasks, equal budgets."""
