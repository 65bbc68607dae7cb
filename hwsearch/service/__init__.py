"""What a user touches: jobs, run folders, the pipeline of stages, the command line."""
