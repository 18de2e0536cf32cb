"""Names under which a run's logs and results say what they hold."""

__all__ = ['BEST', 'TRAINED', 'VALIDATION']

# The row of results.json that the run is for; the others are its baselines.
TRAINED = 'after training'
# That of the state that validated best, where classes were held out.
BEST = 'best by validation'
# The kind of records that are evaluations on classes held out.
VALIDATION = 'validation'
