"""The parts of networks and distributions: batches, noise, layers, priors, likelihoods, schedules, sampling."""
