"""What a user touches: jobs, run folders, the pipeline of stages, reports, the command line."""
