"""The one learner on parameter servers: workers compute, servers hold the variables.

Nothing here knows a model, a loss or an update. A :class:`~ctr.distributed.trainer.ClusterTrainer`
builds the ordinary learner with its variables on the servers and hands the ordinary launches to
the workers.
"""
