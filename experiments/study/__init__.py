"""What HIER adds to a tuned loss: the study that PLAN.md lays down."""
