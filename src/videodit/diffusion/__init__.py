"""What is learned and how it is sampled: objectives, times, noise, guidance, samplers."""
